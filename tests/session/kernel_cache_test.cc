#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tests/support/fake_backend.h"
#include "tests/support/fake_fuse.h"

// What the kernel may keep, and how it finds out that a name is outdated.

namespace sbxfs {
namespace {

template <typename T>
T Parsed(const std::string& data) {
  T value{};
  EXPECT_GE(data.size(), sizeof(value));
  std::memcpy(&value, data.data(), std::min(data.size(), sizeof(value)));
  return value;
}

class KernelCacheTest : public testing::Test {
 protected:
  fuse_entry_out Entry(const std::string& dir, const std::string& name) {
    const auto answer = fuse_.Lookup(fuse_.Walk(dir), name);
    EXPECT_EQ(answer.error, 0) << name;
    return Parsed<fuse_entry_out>(answer.data);
  }
  FakeFuse::Answer GetAttr(uint64_t node) {
    return fuse_.Call(FUSE_GETATTR, node,
                      std::string(sizeof(fuse_getattr_in), '\0'));
  }
  int OpenNode(uint64_t node, uint32_t flags) {
    std::string payload(sizeof(fuse_open_in), '\0');
    std::memcpy(payload.data(), &flags, sizeof(flags));
    return fuse_.Call(FUSE_OPEN, node, payload).error;
  }

  FakeBackend backend_;
  const std::string uuid_ = backend_.Add("box");
  FakeFuse fuse_{backend_};
};

TEST_F(KernelCacheTest, ASandboxAndItsStatusAreKeptForAMoment) {
  const auto box = Entry("", "box");
  EXPECT_EQ(box.attr_valid, 0U);
  EXPECT_EQ(box.attr_valid_nsec, 250000000U);
  EXPECT_EQ(box.entry_valid_nsec, 100000000U);
  const auto status = Entry("box", "status");
  EXPECT_EQ(status.attr_valid_nsec, 250000000U);
  EXPECT_EQ(status.entry_valid_nsec, 10000000U);
  const auto root = Parsed<fuse_attr_out>(GetAttr(FUSE_ROOT_ID).data);
  EXPECT_EQ(root.attr_valid_nsec, 250000000U);
}

TEST_F(KernelCacheTest, WhatDependsOnTheReaderOrTheClockIsNot) {
  for (const char* const name : {"ssh_config", "usage", "error", "config.yaml",
                                 "console.log", "snapshots"}) {
    const auto entry = Entry("box", name);
    EXPECT_EQ(entry.attr_valid + entry.attr_valid_nsec, 0U) << name;
    EXPECT_EQ(entry.entry_valid + entry.entry_valid_nsec, 0U) << name;
  }
  EXPECT_EQ(fuse_.Lookup(FUSE_ROOT_ID, "none").error, ENOENT);
}

TEST_F(KernelCacheTest, AWriterIsSentToAnotherInodeWhileAWriteWaits) {
  backend_.Hold("act");
  const auto file = fuse_.Open("box/status", O_WRONLY);
  const auto write = fuse_.SendWrite(file, "start\n");
  while (backend_.Held("act") == 0) usleep(1000);
  EXPECT_EQ(OpenNode(file.node, O_WRONLY | O_TRUNC), ESTALE);
  EXPECT_EQ(OpenNode(file.node, O_RDWR), ESTALE);
  EXPECT_EQ(OpenNode(file.node, O_RDONLY), 0);
  EXPECT_NE(fuse_.Walk("box/status"), file.node);
  EXPECT_EQ(fuse_.Cat("box/error"), "");
  backend_.Release("act");
  EXPECT_EQ(fuse_.Wait(write).error, 0);
  EXPECT_EQ(OpenNode(file.node, O_WRONLY), 0);
}

TEST_F(KernelCacheTest, ANameThatStandsForAnotherIsLookedUpAgain) {
  const uint64_t box = fuse_.Walk("box");
  backend_.Erase(uuid_);
  EXPECT_EQ(GetAttr(box).error, ENOENT);
  backend_.Add("box");
  EXPECT_EQ(GetAttr(box).error, ESTALE);
  const uint64_t other = fuse_.Walk("box");
  EXPECT_NE(other, box);
  EXPECT_EQ(GetAttr(other).error, 0);
}

TEST_F(KernelCacheTest, AListingTellsOfTheSandboxesInItAtOnce) {
  const auto opened = fuse_.Call(FUSE_OPENDIR, FUSE_ROOT_ID,
                                 std::string(sizeof(fuse_open_in), '\0'));
  fuse_read_in in{};
  in.fh = Parsed<fuse_open_out>(opened.data).fh;
  in.size = 4096;
  std::string payload(sizeof(in), '\0');
  std::memcpy(payload.data(), &in, sizeof(in));
  const auto listed = fuse_.Call(FUSE_READDIRPLUS, FUSE_ROOT_ID, payload);
  ASSERT_EQ(listed.error, 0);
  uint64_t box = 0;
  for (size_t at = 0; at < listed.data.size();) {
    const auto entry = Parsed<fuse_direntplus>(listed.data.substr(at));
    const std::string name = listed.data.substr(
        at + FUSE_NAME_OFFSET_DIRENTPLUS, entry.dirent.namelen);
    if (name == "box") {
      box = entry.entry_out.nodeid;
      EXPECT_EQ(entry.entry_out.attr.mode, S_IFDIR | 0700U);
    } else {
      EXPECT_EQ(entry.entry_out.nodeid, 0U) << name;
    }
    at += FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET_DIRENTPLUS + entry.dirent.namelen);
  }
  EXPECT_EQ(GetAttr(box).error, 0);
  fuse_.Forget(box, 1);
  // Forgotten as often as it was told of.
  while (GetAttr(box).error == 0) usleep(1000);
  EXPECT_EQ(GetAttr(box).error, ESTALE);
}

}  // namespace
}  // namespace sbxfs
