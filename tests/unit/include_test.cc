#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

// The layers, by their include lines: every library's headers are within the
// compiler's reach everywhere, so that nothing else would notice.

namespace sbxfs {
namespace {

namespace fs = std::filesystem;
using testing::IsEmpty;

// Files by name, "backend/spec/spec.h", and what each includes: "fs/x.h" or
// "<libvirt/libvirt.h>".
using Includes = std::map<std::string, std::vector<std::string>>;

std::vector<std::string> IncludesOf(const fs::path& path) {
  std::vector<std::string> found;
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::erase_if(line, [](char c) { return c == ' ' || c == '\t'; });
    constexpr std::string_view kWord = "#include";
    if (!line.starts_with(kWord)) continue;
    const std::string what = line.substr(kWord.size());
    const char close = what[0] == '<' ? '>' : '"';
    const std::string name = what.substr(1, what.find(close, 1) - 1);
    found.push_back(close == '>' ? "<" + name + ">" : name);
  }
  return found;
}

const Includes& AllIncludes() {
  static const Includes all = [] {
    Includes found;
    const fs::path root = SBXFS_SOURCE_DIR;
    for (const char* top : {"fs", "backend", "mount-helper"}) {
      for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
        const fs::path& path = entry.path();
        if (path.extension() == ".h" || path.extension() == ".cc") {
          found[path.lexically_relative(root)] = IncludesOf(path);
        }
      }
    }
    return found;
  }();
  return all;
}

bool Starts(const std::string& text,
            const std::vector<std::string_view>& beginnings) {
  for (const std::string_view beginning : beginnings) {
    if (text.starts_with(beginning)) return true;
  }
  return false;
}

// "file includes what" for each include line of a file below `top` that is
// `bad`.
std::vector<std::string> Offences(
    const std::string& top,
    const std::function<bool(const std::string& what)>& bad) {
  std::vector<std::string> found;
  for (const auto& [file, includes] : AllIncludes()) {
    if (!file.starts_with(top)) continue;
    for (const std::string& what : includes) {
      if (bad(what)) found.push_back(file + " includes " + what);
    }
  }
  return found;
}

TEST(Include, TheTreeWasRead) {
  EXPECT_GT(AllIncludes().size(), 30);
  EXPECT_TRUE(AllIncludes().contains("backend/backend.h"));
}

TEST(Include, OurHeadersAreNamedFromTheTop) {
  EXPECT_THAT(Offences("",
                       [](const std::string& what) {
                         return what[0] != '<' && !AllIncludes().contains(what);
                       }),
              IsEmpty());
}

TEST(Include, FsKnowsTheBackendByItsInterface) {
  EXPECT_THAT(Offences("fs/",
                       [](const std::string& what) {
                         return Starts(what, {"<libvirt", "<yaml-cpp",
                                              "<libxml", "mount-helper/"});
                       }),
              IsEmpty());
  // Nor by way of another header.
  for (const auto& [file, direct] : AllIncludes()) {
    if (!file.starts_with("fs/")) continue;
    std::set<std::string> seen;
    std::vector<std::string> open = direct;
    while (!open.empty()) {
      const std::string what = open.back();
      open.pop_back();
      EXPECT_FALSE(Starts(what, {"<libvirt", "<yaml-cpp"}))
          << file << " reaches " << what;
      const auto next = AllIncludes().find(what);
      if (next == AllIncludes().end() || !seen.insert(what).second) continue;
      open.insert(open.end(), next->second.begin(), next->second.end());
    }
  }
}

TEST(Include, BackendKnowsNoFuse) {
  EXPECT_THAT(Offences("backend/",
                       [](const std::string& what) {
                         return Starts(what, {"<fuse", "fs/", "mount-helper/"});
                       }),
              IsEmpty());
}

TEST(Include, UtilStandsAlone) {
  EXPECT_THAT(Offences("backend/util/",
                       [](const std::string& what) {
                         return what[0] != '<' &&
                                !what.starts_with("backend/util/");
                       }),
              IsEmpty());
}

TEST(Include, MountHelperHasUtilAlone) {
  EXPECT_THAT(
      Offences("mount-helper/",
               [](const std::string& what) {
                 return Starts(what, {"<libvirt", "<yaml-cpp", "<fuse"}) ||
                        (what[0] != '<' &&
                         !Starts(what, {"mount-helper/", "backend/util/"}));
               }),
      IsEmpty());
}

TEST(Include, YamlIsReadInOnePlace) {
  for (const auto& [file, includes] : AllIncludes()) {
    if (file.starts_with("backend/spec/")) continue;
    for (const std::string& what : includes) {
      EXPECT_FALSE(what.starts_with("<yaml-cpp"))
          << file << " includes " << what;
    }
  }
}

}  // namespace
}  // namespace sbxfs
