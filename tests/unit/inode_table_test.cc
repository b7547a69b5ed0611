#include "fs/inode_table.h"

#include <gtest/gtest.h>

namespace sbxfs {
namespace {

class TestNode : public Node {
 public:
  explicit TestNode(const std::string& key, bool overtakable = false)
      : Node(key, ""), overtakable_(overtakable) {}
  struct stat Stat(const Caller&) override {
    return {};
  }
  void Change(const Caller&, const Changes&, Reply<Done>) override {}
  bool Overtakable() const override { return overtakable_; }

 private:
  const bool overtakable_;
};

NodePtr Make(const std::string& key, bool overtakable = false) {
  return std::make_shared<TestNode>(key, overtakable);
}

class Inodes : public testing::Test {
 protected:
  InodeTable table_{Make("/"), 7};
};

TEST_F(Inodes, TheRootStays) {
  EXPECT_EQ(table_.Find(1)->key, "/");
  table_.Forget(1, 100);
  EXPECT_EQ(table_.Find(1)->key, "/");
}

TEST_F(Inodes, AnObjectKeepsItsNumber) {
  const auto number = table_.Remember(Make("a"));
  EXPECT_EQ(table_.Remember(Make("a")), number);
  EXPECT_EQ(table_.Number(*Make("a")), number);
  EXPECT_NE(table_.Remember(Make("b")), number);
  table_.Forget(number, 1);
  EXPECT_NE(table_.Find(number), nullptr);
  table_.Forget(number, 1);
  EXPECT_EQ(table_.Find(number), nullptr);
  EXPECT_EQ(table_.Remember(Make("a")), number);
}

TEST_F(Inodes, NumbersAreNeverReused) {
  const auto number = table_.Remember(Make("u/a"));
  const auto other = table_.Remember(Make("v/a"));
  table_.Retire("u/");
  EXPECT_NE(table_.Find(number), nullptr);  // the kernel holds it yet
  const auto fresh = table_.Remember(Make("u/a"));
  EXPECT_NE(fresh, number);
  EXPECT_NE(fresh, other);
  table_.Forget(number, 1);
  EXPECT_EQ(table_.Find(number), nullptr);
  EXPECT_NE(table_.Find(fresh), nullptr);
  EXPECT_EQ(table_.Remember(Make("v/a")), other);
}

TEST_F(Inodes, ForgettingTooMuchOrNothingIsHarmless) {
  table_.Forget(99, 1);
  const auto number = table_.Remember(Make("a"));
  table_.Forget(number, 5);
  EXPECT_EQ(table_.Find(number), nullptr);
}

TEST_F(Inodes, AWaitingWriterIsLeftAlone) {
  const auto number = table_.Remember(Make("status", true));
  auto waiting = table_.Waiting(number);
  const auto second = table_.Remember(Make("status", true));
  EXPECT_NE(second, number);
  EXPECT_EQ(table_.Remember(Make("status", true)), second);
  waiting.reset();
  EXPECT_EQ(table_.Remember(Make("status", true)), second);
  EXPECT_NE(table_.Find(number), nullptr);
  const auto plain = table_.Remember(Make("config"));
  waiting = table_.Waiting(plain);
  EXPECT_EQ(table_.Remember(Make("config")), plain);
}

// What a daemon to come goes by.
TEST_F(Inodes, ANumberFollowsFromKeyAndSeed) {
  const auto number = table_.Remember(Make("u/a"));
  InodeTable next(Make("/"), 7);
  EXPECT_EQ(next.Find(number), nullptr);
  EXPECT_TRUE(next.Fits(number, *Make("u/a")));
  EXPECT_FALSE(next.Fits(number, *Make("u/b")));
  EXPECT_TRUE(next.FitsSubject(number, ""));
  EXPECT_FALSE(next.FitsSubject(number, "another"));
  next.Adopt(number, Make("u/a"));
  EXPECT_EQ(next.Find(number)->key, "u/a");
  EXPECT_EQ(next.Remember(Make("u/a")), number);
  InodeTable other(Make("/"), 8);
  EXPECT_NE(other.Remember(Make("u/a")), number);
}

TEST_F(Inodes, OneThatWasRetiredFitsYet) {
  table_.Retire("u/");
  const auto number = table_.Remember(Make("u/a"));
  InodeTable next(Make("/"), 7);
  EXPECT_TRUE(next.Fits(number, *Make("u/a")));
  EXPECT_NE(next.Remember(Make("u/a")), number);
}

// Those of long ago are forgotten, so that they do not pile up.
TEST_F(Inodes, RetiringWithoutEndTakesNoMemory) {
  const auto number = table_.Remember(Make("u/a"));
  table_.Retire("u/");
  EXPECT_NE(table_.Number(*Make("u/a")), number);
  for (int i = 0; i < 5000; ++i) table_.Retire(std::to_string(i) + "/");
  EXPECT_EQ(table_.Number(*Make("u/a")), number);
}

}  // namespace
}  // namespace sbxfs
