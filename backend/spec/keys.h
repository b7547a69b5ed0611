#ifndef SBXFS_BACKEND_SPEC_KEYS_H_
#define SBXFS_BACKEND_SPEC_KEYS_H_

#include <string_view>

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

// Lays the document `root` over `spec`. `name` stands in the sentences.
// Throws as ParseSpec does.
void ApplyLayer(std::string_view name, const YamlNode& root, Spec& spec);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SPEC_KEYS_H_
