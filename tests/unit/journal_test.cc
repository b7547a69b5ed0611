#include "backend/util/journal.h"

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <filesystem>
#include <string>

#include "backend/util/error.h"
#include "backend/util/socket.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

TEST(Journal, HasPriorityFieldsAndLinesAsTheyAre) {
  std::string dir = std::filesystem::temp_directory_path() / "sbxfs-XXXXXX";
  ASSERT_NE(mkdtemp(dir.data()), nullptr);
  const UniqueFd journal(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0));
  const sockaddr_un at = UnixAddress(dir + "/socket");
  ASSERT_EQ(
      bind(journal.Get(), reinterpret_cast<const sockaddr*>(&at), sizeof at),
      0);
  const auto heard = [&journal] {
    char text[512];
    const ssize_t size = recv(journal.Get(), text, sizeof text, 0);
    return size < 0 ? "nothing"
                    : std::string(text, static_cast<std::size_t>(size));
  };
  spdlog::logger log(
      "sbxfs", JournalSink({{"SBXFS_DIR", "/m"}, {"SBXFS_URI", "test:///"}},
                           dir + "/socket"));
  const std::string fields =
      "SYSLOG_IDENTIFIER=sbxfs\nSBXFS_DIR=/m\nSBXFS_URI=test:///\n";
  log.warn("Cannot do '{}'", "this");
  EXPECT_EQ(heard(), fields + "PRIORITY=4\nMESSAGE=Cannot do 'this'\n");
  log.error("a\nb=c");
  EXPECT_EQ(heard(), fields + "PRIORITY=3\nMESSAGE\n" +
                         std::string("\5\0\0\0\0\0\0\0", 8) + "a\nb=c\n");
  log.debug("too little");
  EXPECT_EQ(heard(), "nothing");
  log.critical("{}", std::string(100000, 'x'));
  EXPECT_EQ(heard().substr(0, fields.size() + 20),
            fields + "PRIORITY=2\nMESSAGE=x");
  std::filesystem::remove_all(dir);
}

TEST(Journal, NobodyListens) {
  try {
    (void)JournalSink({}, "/nowhere/socket");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.Errno(), ENOENT);
    EXPECT_EQ(error.Sentence(),
              "Cannot log to 'journal': /nowhere/socket: No such file or "
              "directory; log to syslog or a file");
  }
}

}  // namespace
}  // namespace sbxfs
