#include "backend/util/carry.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <utility>

#include "backend/util/socket.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

// A carried connection: what its two ends have.
struct Carried {
  Carried() {
    int pair[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    left = UniqueFd(pair[0]);
    UniqueFd inner_left(pair[1]);
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    right = UniqueFd(pair[0]);
    carrier = std::thread([a = std::move(inner_left), b = UniqueFd(pair[1])] {
      Carry(a.Get(), b.Get());
    });
  }
  ~Carried() {
    left.Reset();
    right.Reset();
    carrier.join();
  }
  UniqueFd left, right;
  std::thread carrier;
};

std::string ReadToEnd(int fd) {
  std::string text;
  std::string buffer(65536, '\0');
  for (ssize_t count = 0;
       (count = read(fd, buffer.data(), buffer.size())) > 0;) {
    text.append(buffer, 0, static_cast<size_t>(count));
  }
  return text;
}

std::string Numbers(size_t bytes, char first) {
  std::string text(bytes, first);
  for (size_t i = 0; i < bytes; i += 997) text[i] = static_cast<char>(i / 997);
  return text;
}

TEST(CarryTest, AnEndIsPassedOnAndTheOtherWayGoesOn) {
  const Carried carried;
  EXPECT_TRUE(SendAll(carried.left.Get(), "question"));
  shutdown(carried.left.Get(), SHUT_WR);
  EXPECT_EQ(ReadToEnd(carried.right.Get()), "question");
  EXPECT_TRUE(SendAll(carried.right.Get(), "answer"));
  shutdown(carried.right.Get(), SHUT_WR);
  EXPECT_EQ(ReadToEnd(carried.left.Get()), "answer");
}

// More than sockets hold, both ways, by peers who read only when they have
// written all: what waits for both at once would never end.
TEST(CarryTest, NeitherWayWaitsForTheOther) {
  const Carried carried;
  const std::string there = Numbers(8 << 20, 'a');
  const std::string back = Numbers(8 << 20, 'b');
  const auto send = [](int fd, const std::string& text) {
    return std::thread([fd, &text] {
      EXPECT_TRUE(SendAll(fd, text));
      shutdown(fd, SHUT_WR);
    });
  };
  std::thread first = send(carried.left.Get(), there);
  // It cannot end before somebody reads; the other way is not held up by that.
  std::thread second = send(carried.right.Get(), back);
  EXPECT_EQ(ReadToEnd(carried.left.Get()), back);
  EXPECT_EQ(ReadToEnd(carried.right.Get()), there);
  first.join();
  second.join();
}

TEST(CarryTest, OneWhoIsGoneEndsIt) {
  Carried carried;
  carried.right.Reset();
  std::string all(1 << 20, 'x');
  while (SendAll(carried.left.Get(), all)) {
  }
}

}  // namespace
}  // namespace sbxfs
