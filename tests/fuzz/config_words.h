#ifndef SBXFS_TESTS_FUZZ_CONFIG_WORDS_H_
#define SBXFS_TESTS_FUZZ_CONFIG_WORDS_H_

#include <string_view>
#include <vector>

namespace sbxfs::fuzz {

// Lines that config.yaml has, and values that may be wrong anywhere.
[[nodiscard]] const std::vector<std::string_view>& ConfigLines();
[[nodiscard]] const std::vector<std::string_view>& ConfigValues();

}  // namespace sbxfs::fuzz

#endif  // SBXFS_TESTS_FUZZ_CONFIG_WORDS_H_
