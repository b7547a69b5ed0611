#ifndef SBXFS_BACKEND_SPEC_LAYERS_H_
#define SBXFS_BACKEND_SPEC_LAYERS_H_

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/spec/spec.h"

namespace sbxfs {

// Layers as one text, to be kept, and back.
[[nodiscard]] std::string PackLayers(const std::vector<Layer>& layers);
[[nodiscard]] std::vector<Layer> UnpackLayers(std::string_view packed);

// A template's text by its path below .host/templates
// ("_images/debian-12.yaml").
using FindTemplate =
    std::function<std::optional<std::string>(const std::string& path)>;

// The layers that `base` of config.yaml's `text` names, weakest first, theirs
// too. Throws Error(EINVAL) for what is not there, is no template, or comes to
// stand on itself.
[[nodiscard]] std::vector<Layer> TakeBases(std::string_view text,
                                           const FindTemplate& find);

// Checks a document of .host that is a layer: "defaults.yaml", "override.yaml",
// or a template, which alone may have a base. Throws Error(EINVAL).
void CheckLayer(const std::string& name, const std::string& text,
                bool is_template);

// Whether `text` itself sets the dotted `key`.
[[nodiscard]] bool SetsKey(std::string_view text, std::string_view key);

// A line at the end of effective.yaml: what sbxfs chose, or found out.
struct Fact {
  std::string key;
  std::string value;
};

// All that holds, with the layer of each value as a comment, why a key has no
// effect here, and `facts`. Throws as ParseSpec does.
[[nodiscard]] std::string EffectiveText(const std::vector<Layer>& layers,
                                        const std::vector<Fact>& facts);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SPEC_LAYERS_H_
