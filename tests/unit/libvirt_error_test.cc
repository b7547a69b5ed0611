#include "backend/libvirt_error.h"

#include <gtest/gtest.h>
#include <libvirt/libvirt.h>

#include <cerrno>
#include <cstdlib>
#include <string>

namespace sbxfs {
namespace {

Error WhatIsNotSupported() {
  virConnectPtr connection = virConnectOpen("test:///default");
  if (virNodeSuspendForDuration(connection, 0, 60, 0) == 0) std::abort();
  Error error = LibvirtError("Cannot sleep");
  virConnectClose(connection);
  return error;
}

bool NamesTheVersion(const Error& error) {
  return error.Sentence().ends_with(
      "; libvirt 7.0.0 is older than the 9.0.0 that sbxfs is made for: upgrade "
      "it");
}

// It is a fact of the process, hence one of its own.
TEST(LibvirtErrorTest, WhatAnOldLibvirtLacksIsToldAsThat) {
  EXPECT_EQ(NoteLibvirtVersion(11003000), "");
  const Error error = WhatIsNotSupported();
  EXPECT_EQ(error.Errno(), EOPNOTSUPP) << error.Sentence();
  EXPECT_FALSE(NamesTheVersion(error)) << error.Sentence();
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const std::string note = NoteLibvirtVersion(7000000);
        const bool told = note.starts_with("note: libvirt 7.0.0 is older") &&
                          NamesTheVersion(WhatIsNotSupported());
        std::exit(told ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace sbxfs
