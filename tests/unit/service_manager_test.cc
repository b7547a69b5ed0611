#include "backend/util/service_manager.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>

#include "backend/util/error.h"
#include "backend/util/parcel.h"
#include "backend/util/socket.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

// Listens as systemd does, and names itself to those that are started.
class NotifySocket {
 public:
  explicit NotifySocket(const std::string& address)
      : fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    sockaddr_un at = UnixAddress(address);
    if (address[0] == '@') at.sun_path[0] = '\0';
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) +
                                               address.size());
    EXPECT_EQ(bind(fd_.Get(), reinterpret_cast<sockaddr*>(&at), length), 0)
        << std::strerror(errno);
    setenv("NOTIFY_SOCKET", address.c_str(), 1);
  }
  std::string Heard() {
    char text[256];
    const ssize_t length = recv(fd_.Get(), text, sizeof text, 0);
    return length < 0 ? "nothing"
                      : std::string(text, static_cast<std::size_t>(length));
  }

  // Waits for that message, and takes the descriptor in it.
  UniqueFd Given(const std::string& text) {
    pollfd event{fd_.Get(), POLLIN, 0};
    EXPECT_EQ(poll(&event, 1, 10000), 1);
    std::string got(text.size(), ' ');
    Parcel parcel;
    parcel.part = {got.data(), got.size()};
    EXPECT_EQ(recvmsg(fd_.Get(), &parcel.message, 0),
              static_cast<ssize_t>(text.size()));
    EXPECT_EQ(got, text);
    return parcel.TakeOut();
  }

 private:
  UniqueFd fd_;
};

TEST(ServiceManager, IsToldAtItsSocketInTheFileSystem) {
  std::string dir = std::filesystem::temp_directory_path() / "sbxfs-XXXXXX";
  ASSERT_NE(mkdtemp(dir.data()), nullptr);
  NotifySocket systemd(dir + "/notify");
  const ServiceManager manager;
  manager.Tell("READY=1\nSTATUS=at '/m'");
  manager.Tell("STOPPING=1");
  EXPECT_EQ(systemd.Heard(), "READY=1\nSTATUS=at '/m'");
  EXPECT_EQ(systemd.Heard(), "STOPPING=1");
  EXPECT_EQ(systemd.Heard(), "nothing");
  std::filesystem::remove_all(dir);
}

TEST(ServiceManager, IsToldAtItsAbstractSocket) {
  NotifySocket systemd("@sbxfs-test-" + std::to_string(getpid()));
  const ServiceManager manager;
  manager.Tell("READY=1");
  EXPECT_EQ(systemd.Heard(), "READY=1");
}

TEST(ServiceManager, IsNotTheManagerOfWhatIsStartedFromHere) {
  NotifySocket systemd("@sbxfs-test-" + std::to_string(getpid()));
  const ServiceManager manager;
  EXPECT_EQ(getenv("NOTIFY_SOCKET"), nullptr);
}

// What the manager is given is what the next process of the unit has; it is
// asked to forget it.
TEST(ServiceManager, KeepsADescriptorForTheNextProcess) {
  NotifySocket systemd("@sbxfs-test-" + std::to_string(getpid()));
  const std::string address = getenv("NOTIFY_SOCKET");
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const UniqueFd out(ends[0]);
  const UniqueFd in(ends[1]);
  UniqueFd kept;
  std::thread manager([&] {
    kept = systemd.Given("FDSTORE=1\nFDNAME=mount");
    systemd.Given("BARRIER=1").Reset();
  });
  ServiceManager().Keep(in.Get(), "mount");
  manager.join();
  ASSERT_TRUE(kept.Valid());
  ASSERT_EQ(write(kept.Get(), "x", 1), 1);
  char byte = 0;
  ASSERT_EQ(read(out.Get(), &byte, 1), 1);

  const pid_t child = fork();
  if (child == 0) {
    if (dup2(kept.Get(), 3) != 3) _exit(1);
    setenv("NOTIFY_SOCKET", address.c_str(), 1);
    setenv("LISTEN_PID", std::to_string(getpid()).c_str(), 1);
    setenv("LISTEN_FDS", "1", 1);
    setenv("LISTEN_FDNAMES", "mount", 1);
    const UniqueFd mine = ServiceManager::Kept("mount");
    if (write(mine.Get(), "y", 1) != 1) _exit(2);
    if (getenv("LISTEN_FDS") != nullptr) _exit(3);
    _exit(ServiceManager::Kept("mount").Valid() ? 4 : 0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  ASSERT_EQ(read(out.Get(), &byte, 1), 1);
  EXPECT_EQ(byte, 'y');
  EXPECT_EQ(systemd.Heard(), "FDSTOREREMOVE=1\nFDNAME=mount");
}

TEST(ServiceManager, WithoutOneNothingIsKept) {
  unsetenv("NOTIFY_SOCKET");
  EXPECT_THROW(ServiceManager().Keep(0, "mount"), Error);
  // Another process's.
  setenv("LISTEN_PID", "1", 1);
  setenv("LISTEN_FDS", "1", 1);
  EXPECT_FALSE(ServiceManager::Kept("mount").Valid());
  unsetenv("LISTEN_PID");
  unsetenv("LISTEN_FDS");
}

TEST(ServiceManager, NoneOrOneThatIsGoneIsNoError) {
  unsetenv("NOTIFY_SOCKET");
  ServiceManager().Tell("READY=1");
  for (const std::string& address :
       {std::string("/nowhere/notify"), std::string("@sbxfs-nobody"),
        std::string("/") + std::string(200, 'x')}) {
    setenv("NOTIFY_SOCKET", address.c_str(), 1);
    ServiceManager().Tell("READY=1");
  }
}

}  // namespace
}  // namespace sbxfs
