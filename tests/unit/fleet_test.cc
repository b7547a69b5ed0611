// The file of -o hosts.
#include "backend/fleet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sbxfs {
namespace {

TEST(Hypervisors, AreLinesOfNameAndUri) {
  EXPECT_EQ(ReadHypervisors("f",
                            "# mine\n\nbig  qemu+ssh://root@big/system \n"
                            "here\tqemu:///system\n"),
            (std::vector<Hypervisor>{{"big", "qemu+ssh://root@big/system"},
                                     {"here", "qemu:///system"}}));
}

TEST(Hypervisors, RefusesWhatIsNone) {
  for (const auto& [text, told] :
       std::vector<std::pair<const char*, const char*>>{
           {"", "Cannot use 'f': it names no hypervisor; "},
           {"# no\n", "Cannot use 'f': it names no hypervisor; "},
           {"\nbig\n", "Cannot use 'f': line 2: 'big' has no URI; "},
           {"a.b qemu:///system", "line 1: 'a.b' is no name; "},
           {"Big qemu:///system", "line 1: 'Big' is no name; "},
           {"a qemu:///system\na qemu:///session", "line 2: 'a' is there"},
           {"a qemu:///system\nb qemu:///system",
            "line 2: 'qemu:///system' is there twice"},
       }) {
    try {
      (void)ReadHypervisors("f", text);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.Errno(), EINVAL);
      EXPECT_THAT(error.Sentence(), testing::HasSubstr(told));
    }
  }
}

}  // namespace
}  // namespace sbxfs
