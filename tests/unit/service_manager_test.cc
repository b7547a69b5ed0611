#include "backend/util/service_manager.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <string>

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
