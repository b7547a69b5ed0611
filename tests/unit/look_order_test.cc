#include "backend/util/look_order.h"

#include <gtest/gtest.h>

#include "backend/catalog.h"

namespace sbxfs {
namespace {

TEST(LookOrder, WhoBeganToLookEarlierKnowsLess) {
  LookOrder looks;
  const auto early = looks.Begin();
  const auto late = looks.Begin();
  EXPECT_TRUE(looks.Keeps(late));
  EXPECT_FALSE(looks.Keeps(early));
  EXPECT_TRUE(looks.Keeps(looks.Begin()));
  // In the order they began in, both.
  const auto third = looks.Begin();
  const auto fourth = looks.Begin();
  EXPECT_TRUE(looks.Keeps(third));
  EXPECT_TRUE(looks.Keeps(fourth));
}

TEST(LookOrder, WhatIsNotKeptChangesNothing) {
  Catalog catalog;
  const HostPtr before = catalog.GetHost();
  EXPECT_FALSE(catalog.ChangeHostIf([](Host& host) {
    host.uri = "test:///default";
    return false;
  }));
  EXPECT_EQ(catalog.GetHost(), before);
  EXPECT_TRUE(catalog.ChangeHostIf([](Host& host) {
    host.uri = "test:///default";
    return true;
  }));
  EXPECT_EQ(catalog.GetHost()->uri, "test:///default");
}

}  // namespace
}  // namespace sbxfs
