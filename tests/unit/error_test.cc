#include "backend/util/error.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace sbxfs {
namespace {

constexpr char kWhat[] = "Cannot create 'box'";

TEST(ErrorTest, WhatFailedBelowIsToldAsTheAskersOwn) {
  const Error below(ENOSPC, "Cannot make volume '1.disk': no space: at all");
  EXPECT_EQ(below.Of(kWhat).Sentence(),
            "Cannot create 'box': no space: at all");
  EXPECT_EQ(below.Of(kWhat).Errno(), ENOSPC);
  EXPECT_EQ(Error(EIO, "no colon").Of(kWhat).Sentence(),
            "Cannot create 'box': no colon");
}

TEST(ErrorTest, WhatIsTheAskersOwnStays) {
  for (const Error& own :
       {Error(EIO, "Cannot create 'box': it burns"),
        Error(EINVAL, "Cannot read config.yaml: line 3: no such key")}) {
    EXPECT_EQ(own.Of(kWhat).Sentence(), own.Sentence());
    EXPECT_EQ(own.Of(kWhat).Errno(), own.Errno());
  }
}

}  // namespace
}  // namespace sbxfs
