#ifndef SBXFS_BACKEND_SPEC_EDITOR_H_
#define SBXFS_BACKEND_SPEC_EDITOR_H_

#include <string>
#include <string_view>
#include <vector>

#include "backend/spec/layout.h"
#include "backend/spec/yaml.h"

namespace sbxfs {

// The document's name in sentences.
inline constexpr char kEdited[] = "config.yaml";

// Edits a YAML text in place by proposing replacements, best first; the first
// whose result reads back as what was wanted is taken. So a text laid out in a
// way that was not thought of is refused, never spoilt.
class Editor {
 protected:
  // `text` must outlive it.
  explicit Editor(std::string_view text)
      : text_(text), root_(ReadYaml(kEdited, text)), layout_(text) {}
  ~Editor() = default;
  Editor(const Editor&) = delete;
  Editor& operator=(const Editor&) = delete;

  void Propose(std::size_t begin, std::size_t end, std::string text) {
    edits_.push_back({begin, end, std::move(text)});
  }
  // New lines before the line that starts at `at`, or at the text's end.
  void ProposeLines(std::size_t at, std::string_view lines);
  // Out of brackets, with its comma.
  void ProposeFlowRemoval(std::size_t begin, std::size_t end);

  // Whether the text says that already.
  [[nodiscard]] bool Says(const YamlNode& wanted) const;
  // The text with the first proposal that says it. Throws Error(EINVAL),
  // `Cannot VERB: …`, when none does.
  [[nodiscard]] std::string Best(const YamlNode& wanted,
                                 std::string_view verb) const;

  const std::string_view text_;
  const YamlNode root_;
  const Layout layout_;

 private:
  struct Edit {
    std::size_t begin = 0;
    std::size_t end = 0;
    std::string text;
  };
  std::vector<Edit> edits_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SPEC_EDITOR_H_
