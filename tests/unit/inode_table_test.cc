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
  InodeTable table_{Make("/")};
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
  EXPECT_GT(fresh, other);
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

}  // namespace
}  // namespace sbxfs
