#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "backend/util/unique_fd.h"
#include "tests/support/guest_mount.h"

// The layers of settings, from .host to what libvirt defines.

namespace sbxfs {
namespace {

class LayersTest : public BlankGuests {
 protected:
  void TearDown() override {
    if (mount_ != nullptr) ForgetOverride();
    BlankGuests::TearDown();
  }
  // cp of a text: close's errno.
  static int Put(const std::filesystem::path& path, const std::string& text) {
    UniqueFd fd(
        open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (!fd.Valid() || write(fd.Get(), text.data(), text.size()) < 0) {
      return errno;
    }
    return close(fd.Release()) < 0 ? errno : 0;
  }
  std::string Read(const std::string& path) { return ReadText(Dir() / path); }
  bool Shows(const std::string& path, const std::string& text) {
    return Eventually(
        [&] { return Read(path).find(text) != std::string::npos; });
  }
};

TEST_F(LayersTest, ATemplateIsTakenInWhenConfigIsSaved) {
  const auto folder = Host() / "templates/_t";
  ASSERT_EQ(Call([&] { return mkdir(folder.c_str(), 0755); }), Verdict{});
  ASSERT_EQ(Put(folder / "small.yaml", "memory: 48MiB\n"), 0);
  EXPECT_EQ(Put(folder / "bad.yaml", "memory: lots\n"), EINVAL);
  ASSERT_EQ(Put(Dir() / "box.yaml", "base: template:_t/small\n"), 0)
      << ReadText(Host() / "error");
  EXPECT_EQ(Read("box/memory"), "48MiB\n");
  EXPECT_TRUE(
      Shows("box/effective.yaml", "memory: 48MiB  # template:_t/small"));
  EXPECT_TRUE(Shows("box/effective.yaml", "cpus: 1  # defaults.yaml"));
  // Editing it changes no sandbox that is there, nor does a single key's file.
  ASSERT_EQ(Put(folder / "small.yaml", "memory: 56MiB\n"), 0);
  ASSERT_EQ(WriteText(Dir() / "box/description", "x\n"), Verdict{});
  EXPECT_EQ(Read("box/memory"), "48MiB\n");
  EXPECT_EQ(Read("box/pending"), "");
  // Saving config.yaml takes it in anew.
  ASSERT_EQ(Put(Dir() / "box/config.yaml", "base: template:_t/small\n"), 0);
  EXPECT_EQ(Read("box/memory"), "56MiB\n");
  EXPECT_EQ(Put(Dir() / "box/config.yaml", "base: template:none\n"), EINVAL);
  EXPECT_TRUE(Shows("box/error",
                    "base 'template:none': there is no "
                    ".host/templates/none.yaml; cp it there"));
  // Gone, it is still in force.
  for (const char* name : {"small.yaml", ""}) {
    const auto path = folder / name;
    EXPECT_EQ(std::remove(path.c_str()), 0) << path;
  }
  EXPECT_EQ(Read("box/memory"), "56MiB\n");
  EXPECT_FALSE(std::filesystem::exists(Host() / "templates/_t"));
}

TEST_F(LayersTest, AnOverrideWinsAndRefusesWhatItDecides) {
  Mkdir("box");
  ASSERT_EQ(WriteText(Dir() / "box/memory", "40MiB\n"), Verdict{});
  ASSERT_EQ(Put(Host() / "override.yaml", "memory: 44MiB\n"), 0);
  EXPECT_EQ(Read("box/memory"), "44MiB\n");
  EXPECT_TRUE(Shows("box/effective.yaml", "memory: 44MiB  # override.yaml"));
  EXPECT_EQ(WriteText(Dir() / "box/memory", "40MiB\n").error, EPERM);
  EXPECT_TRUE(Shows("box/error",
                    "Cannot set memory of 'box' to '40MiB': "
                    ".host/override.yaml sets it, which wins; "
                    "change it there"));
  EXPECT_EQ(WriteText(Dir() / "box/description", "y\n"), Verdict{});
  EXPECT_EQ(Put(Host() / "override.yaml", "base: x\n"), EINVAL);
  Boot("box");
  EXPECT_EQ(Read("box/pending"), "");
  // A guest that runs takes it at its next start.
  ASSERT_EQ(Put(Host() / "override.yaml", "memory: 52MiB\n"), 0);
  EXPECT_TRUE(Shows("box/pending", "memory\n"));
  ASSERT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
  Boot("box");
  EXPECT_EQ(Read("box/pending"), "");
  EXPECT_TRUE(Shows("box/domain.xml", "<memory unit='KiB'>53248</memory>"));
  ASSERT_EQ(WriteText(Dir() / "box/status", "kill\n"), Verdict{});
}

}  // namespace
}  // namespace sbxfs
