// A Debian guest that nobody uses is saved, and goes on for who comes.
#include <fmt/format.h>

#include <chrono>
#include <fstream>
#include <future>
#include <string>

#include "backend/util/text.h"
#include "tests/support/debian_guests.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

constexpr char kBootId[] = "cat /proc/sys/kernel/random/boot_id";

class IdleGuestTest : public DebianGuests {
 protected:
  IdleGuestTest() : DebianGuests(Boots::kWarmIfItCan) {}
  [[nodiscard]] std::string Status() const {
    return ReadLine(Dir() / "box/status");
  }
  [[nodiscard]] bool IsSaved() const {
    // Its port is open a moment after it is seen to be saved.
    const std::string port = ReadLine(Dir() / "box/ssh_port");
    return Eventually([&] { return Status() == "saved" && Listens(port); },
                      600s);
  }
  // What a shell says that has an ssh to the guest's port as $ssh: the way of
  // ssh_config would write `start` itself.
  [[nodiscard]] std::string ByPort(const std::string& script) const {
    const Ended ended = RunProgram(
        {"sh", "-c",
         fmt::format("ssh='ssh -F {} -o BatchMode=yes -o ProxyCommand=none "
                     "-o HostName=127.0.0.1 -p {} sbx-box'; {}",
                     (Host() / "ssh_config").string(),
                     ReadLine(Dir() / "box/ssh_port"), script)},
        600s);
    EXPECT_EQ(ended.status, 0) << ended.err;
    return std::string(Trim(ended.out));
  }
};

TEST_F(IdleGuestTest, NobodyThereItIsSavedAndGoesOnForSshAndJobs) {
  Make("box", std::string(kWarmConfig) + "idle: 10s\n");
  Do("box/status", "start");
  const std::string boot = In("box", kBootId);
  // Somebody who is logged in, and does nothing.
  {
    auto person = std::async(std::launch::async,
                             [&] { return In("box", "sleep 20; echo still"); });
    while (person.wait_for(100ms) != std::future_status::ready) {
      EXPECT_EQ(Status(), "running");
    }
    EXPECT_EQ(person.get(), "still");
  }
  ASSERT_TRUE(IsSaved());
  // Much, both ways, by the connection that wakes it.
  EXPECT_EQ(ByPort("head -c 4000000 /dev/zero | $ssh cat | wc -c"), "4000000");
  ASSERT_TRUE(IsSaved());
  EXPECT_EQ(Job("box", kBootId), boot);
  // A daemon that ends does not hang up on who is carried.
  ASSERT_TRUE(IsSaved());
  auto person = std::async(std::launch::async, [&] {
    return ByPort("$ssh 'sleep 20; echo still'");
  });
  ASSERT_TRUE(Eventually(
      [&] {
        return RunProgram({"pgrep", "sbxfs-carry"}).status == 0;
      },
      60s));
  mount_->Crash();
  mount_->Start();
  EXPECT_EQ(person.get(), "still");
}

}  // namespace
}  // namespace sbxfs
