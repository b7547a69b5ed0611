#ifndef SBXFS_BACKEND_SPEC_MERGE_H_
#define SBXFS_BACKEND_SPEC_MERGE_H_

#include "backend/spec/yaml.h"

namespace sbxfs {

// The documents `weak` and `strong` as one. Nodes keep their places, so that
// each still tells which layer it is from.
[[nodiscard]] YamlNode MergeLayers(YamlNode weak, const YamlNode& strong);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SPEC_MERGE_H_
