// The files of a Debian guest that runs: box/fs.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>

#include "backend/util/text.h"
#include "backend/util/unique_fd.h"
#include "tests/support/debian_guests.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

class FilesTest : public DebianGuests {
 protected:
  FilesTest() : DebianGuests(Boots::kWarmIfItCan) {}
  [[nodiscard]] stdfs::path Fs() const { return Dir() / "box/fs"; }
  // The home of the guest's user, whom kWarmConfig names.
  [[nodiscard]] stdfs::path Home() const { return Fs() / "home/joe"; }
  // What a script says, in that home, without the newline at the end.
  std::string Here(const std::string& script) {
    const Stopwatch watch;
    const Ended ended =
        RunProgram({"bash", "-c",
                    fmt::format("cd {} || exit\n{}", Home().string(), script)},
                   300s);
    EXPECT_EQ(ended.status, 0) << script << '\n' << ended.out << ended.err;
    fmt::print("{:.2f} s: {}\n", watch.Seconds(), script);
    return std::string(Trim(ended.out));
  }
};

TEST_F(FilesTest, AreReadAndWrittenAsTheGuestsUser) {
  Make("box", kWarmConfig);
  EXPECT_EQ(Call([&] { return open((Fs() / "etc").c_str(), O_RDONLY); }).error,
            EOPNOTSUPP);
  EXPECT_NE(ReadText(Dir() / "box/error").find("Cannot reach the files of"),
            std::string::npos);
  Do("box/status", "start");
  ASSERT_EQ(Here("ls -d ../../etc"), "../../etc");
  if (const char* script = std::getenv("SBXFS_TRY")) {
    (void)Here(fmt::format("bash -x {} 2>&1 | tee /tmp/try.log", script));
    return;
  }
}

}  // namespace
}  // namespace sbxfs
