#include "backend/run_dir.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "backend/core.h"
#include "backend/mount/server.h"
#include "backend/util/error.h"
#include "backend/util/log.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

bool IsOwn(const stdfs::path& path) {
  struct stat status {};
  return lstat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode) &&
         status.st_uid == geteuid();
}

stdfs::path Base() {
  const char* xdg = std::getenv("XDG_RUNTIME_DIR");
  if (xdg != nullptr && xdg[0] == '/' && IsOwn(xdg)) return xdg;
  for (const stdfs::path path :
       {std::string("/run"), fmt::format("/run/user/{}", geteuid())}) {
    if (IsOwn(path)) return path;
  }
  return DataDirectory() + "/run";
}

}  // namespace

stdfs::path RunDirectory(const std::string& uuid) {
  return Base() / "sbxfs" / uuid;
}

stdfs::path MakeRunDirectory(const std::string& uuid) {
  stdfs::path dir = RunDirectory(uuid);
  auto fail = [&dir](int error) {
    throw Error(error, fmt::format("Cannot make '{}': {}", dir.native(),
                                   std::strerror(error)));
  };
  std::error_code error;
  stdfs::create_directories(dir.parent_path().parent_path(), error);
  for (const auto& path : {dir.parent_path(), dir}) {
    if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) fail(errno);
    if (!IsOwn(path)) fail(EPERM);
  }
  return dir;
}

void RemoveRunDirectory(const std::string& uuid) {
  const stdfs::path dir = RunDirectory(uuid);
  try {
    StopServersIn(dir, "");
  } catch (const Error& error) {
    spdlog::warn("{}", error.Sentence());
  }
  std::error_code error;
  stdfs::remove_all(dir, error);
}

}  // namespace sbxfs
