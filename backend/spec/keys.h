#ifndef SBXFS_BACKEND_SPEC_KEYS_H_
#define SBXFS_BACKEND_SPEC_KEYS_H_

#include <string>
#include <string_view>
#include <vector>

#include "backend/spec/spec.h"
#include "backend/spec/yaml.h"

namespace sbxfs {

// The one table of the keys of config.yaml.

// What a key's value is, and so how it is written.
enum class ValueType { kText, kSize, kPlain };  // kPlain: a number, true, false

// Of a dotted key; kText for one that is not known.
[[nodiscard]] ValueType TypeOfKey(std::string_view key);

// Whether it can be user.name.
[[nodiscard]] bool IsLogin(std::string_view text);

// Why a key (list items as `[]`) has no effect here; empty when it has one.
[[nodiscard]] std::string_view WhyIdle(std::string_view key);

// What `base` names, in its order: scalars.
[[nodiscard]] std::vector<YamlNode> ReadBase(const YamlNode& node);

// What the document `root` says. Throws as ParseSpec does. `whole`: nothing
// comes beside it, so that params it uses must be there.
[[nodiscard]] Spec ReadKeys(const YamlNode& root, bool whole);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SPEC_KEYS_H_
