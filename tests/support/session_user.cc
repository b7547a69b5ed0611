#include "tests/support/session_user.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <system_error>

namespace sbxfs {

namespace stdfs = std::filesystem;

SessionUser::SessionUser(uid_t uid, const std::string& name)
    : uid_(std::to_string(uid)),
      home_(stdfs::path(std::getenv("SBXFS_INSIDE")) / name) {
  (void)MakeDirectory("");
  (void)MakeDirectory("run");
  (void)MakeDirectory("tree");
  // The build tree may lie where only root comes.
  stdfs::copy_file(std::string(SBXFS_BIN_DIR) + "/sbxfs", home_ / "sbxfs");
}

SessionUser::~SessionUser() {
  // The session's libvirtd among it, which else ends after 2 min.
  (void)RunProgram({"pkill", "-u", uid_});
  EXPECT_TRUE(Eventually([this] { return Processes().empty(); }))
      << Processes();
  std::error_code error;
  stdfs::remove_all(home_, error);
  EXPECT_FALSE(error) << error.message();
}

stdfs::path SessionUser::MakeDirectory(const std::string& name) const {
  stdfs::path place = name.empty() ? home_ : home_ / name;
  stdfs::create_directory(place);
  const auto uid = static_cast<uid_t>(std::stoul(uid_));
  EXPECT_EQ(chown(place.c_str(), uid, uid), 0);
  EXPECT_EQ(chmod(place.c_str(), 0700), 0);
  return place;
}

Ended SessionUser::Sh(const std::string& script,
                      std::chrono::seconds limit) const {
  const std::string home = home_.string();
  return RunProgram(
      {"setpriv", "--reuid", uid_, "--regid", uid_, "--clear-groups", "env",
       "-i", "-C", home, "HOME=" + home, "XDG_RUNTIME_DIR=" + home + "/run",
       std::string("PATH=") + std::getenv("PATH"), "sh", "-c", script},
      limit);
}

std::string SessionUser::Said(const std::string& script,
                              std::chrono::seconds limit,
                              const std::string& told) const {
  Ended ended = Sh(script, limit);
  EXPECT_EQ(ended.status, 0) << script << ": " << ended.err << Sh(told).out;
  return std::move(ended.out);
}

std::string SessionUser::Processes() const {
  return RunProgram({"pgrep", "-l", "-u", uid_}).out;
}

}  // namespace sbxfs
