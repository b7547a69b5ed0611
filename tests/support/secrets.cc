#include "tests/support/secrets.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cctype>
#include <chrono>
#include <fstream>
#include <iterator>

#include "tests/support/guest_mount.h"

namespace sbxfs {

namespace stdfs = std::filesystem;

std::string Canary(const std::string& rest) {
  // Apart, so that no program has it in one piece.
  return std::string("sbxfs") + "-canary-" + rest;
}

void ExpectNoSecrets(const stdfs::path& mount) {
  Ended ended;
  // A seed loses its key a moment after who waited for the boot is told.
  EXPECT_TRUE(Eventually([&] {
    ended = RunProgram(
        {SBXFS_SOURCE_DIR "/tests/secrets/scan", "--mount", mount.string()});
    return ended.status == 0;
  })) << ended.out
      << ended.err;
  fmt::print("{}", ended.out);
}

ProcessWatch::ProcessWatch() : thread_([this] { Watch(); }) {}

ProcessWatch::~ProcessWatch() {
  over_ = true;
  thread_.join();
  EXPECT_EQ(found_, "");
  EXPECT_GT(looks_, 0);
}

void ProcessWatch::Watch() {
  const std::string canary = Canary("");
  const stdfs::path self = fmt::format("/proc/{}", getpid());
  do {
    std::error_code gone;
    for (const auto& process : stdfs::directory_iterator("/proc", gone)) {
      const std::string name = process.path().filename();
      if (std::isdigit(static_cast<unsigned char>(name[0])) == 0 ||
          process.path() == self) {
        continue;
      }
      for (const char* part : {"cmdline", "environ"}) {
        std::ifstream file(process.path() / part);
        const std::string text{std::istreambuf_iterator<char>(file), {}};
        if (text.find(canary) != std::string::npos) {
          found_ += fmt::format("{} {}: {}\n", name, part, text.substr(0, 99));
        }
      }
    }
    ++looks_;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  } while (!over_);
}

}  // namespace sbxfs
