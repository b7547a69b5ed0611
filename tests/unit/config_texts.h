#ifndef SBXFS_TESTS_UNIT_CONFIG_TEXTS_H_
#define SBXFS_TESTS_UNIT_CONFIG_TEXTS_H_

#include <functional>
#include <string>
#include <vector>

#include "backend/spec/spec.h"

// Tables of texts of config.yaml, good and bad.

namespace sbxfs {

[[nodiscard]] Spec ParseText(const std::string& text);

// A text, the keys that it sets, and whether their values are right.
struct Good {
  std::string text;
  std::vector<std::string> keys;
  std::function<bool(const Spec&)> right;
};
// Takes note of the keys, all of which the last of the tests asks for: each key
// that TREE has must be in some good text.
void ExpectGood(const std::vector<Good>& cases);

// A text, and its sentence after "Cannot accept 'config.yaml': ".
struct Bad {
  std::string text;
  std::string sentence;
};
void ExpectBad(const std::vector<Bad>& cases);

}  // namespace sbxfs

#endif  // SBXFS_TESTS_UNIT_CONFIG_TEXTS_H_
