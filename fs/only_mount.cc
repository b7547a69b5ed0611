#include "fs/only_mount.h"

#include <fmt/format.h>
#include <fuse_lowlevel.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "backend/util/error.h"
#include "backend/util/service_manager.h"

namespace sbxfs {

void OnlyMount(const Options& options, const std::string& dir) {
  const std::string& source =
      options.hosts.empty() ? options.uri : options.hosts;
  if (source.empty()) {
    throw Error(EINVAL,
                "Cannot mount: the mount table shows the URI, so --only-mount "
                "needs it; say sbxfs --only-mount URI DIR");
  }
  auto words = FuseArguments(options, source);
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  fuse_args args = FUSE_ARGS_INIT(static_cast<int>(argv.size()), argv.data());
  const fuse_lowlevel_ops nothing{};
  const std::unique_ptr<fuse_session, decltype(&fuse_session_destroy)> session(
      fuse_session_new(&args, &nothing, sizeof(nothing), nullptr),
      &fuse_session_destroy);
  fuse_opt_free_args(&args);
  if (!session || fuse_session_mount(session.get(), dir.c_str()) != 0) {
    throw Error(EPERM,
                fmt::format("Cannot mount at '{}': the reason is above", dir));
  }
  try {
    ServiceManager().Keep(fuse_session_fd(session.get()), kMountName);
  } catch (...) {
    fuse_session_unmount(session.get());
    throw;
  }
}

}  // namespace sbxfs
