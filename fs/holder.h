#ifndef SBXFS_FS_HOLDER_H_
#define SBXFS_FS_HOLDER_H_

#include <optional>
#include <string>

#include "backend/util/unique_fd.h"

namespace sbxfs {

// What the process that serves a mount has from the one that holds it.
//
// The holder was there first and does nothing but wait: it has the mount's
// descriptor, with which the kernel keeps the mount, and the memory of its
// requests (fs/channel.h). A daemon that crashes, or that hands over to a newer
// program, is followed by another, and who uses the mount waits for a moment.
// The holder is the process that others know (it is what was started), and the
// daemon ends with it.
class Hold {
 public:
  // A status of the daemon: another is to go on with the mount, by the program
  // as it is now installed.
  static constexpr int kHandedOver = 75;

  // What a holder left in the environment for the program it became; for one
  // thread, before options are parsed, since it goes to the directory that they
  // were given in.
  [[nodiscard]] static std::optional<Hold> OfHolderBefore();

  // Of a new mount at `dir`, absolute, or of `mount`, which was made there for
  // this process. Throws Error.
  [[nodiscard]] static Hold Of(std::string dir, UniqueFd mount);

  // Becomes the holder, and returns in each daemon that it starts, one after
  // another. `argv` is the program's, `program` its path. In the `background`
  // the holder leaves its caller's session, directory and streams once there is
  // a mount. For one thread, before any other is started. Throws Error when
  // there can be no first daemon.
  void Begin(char** argv, const std::string& program, bool background);

  // The memory for Channel.
  [[nodiscard]] int Memory() const { return memory_.Get(); }
  // The mount's descriptor, of which the daemon gets one of its own; none: it
  // is to be mounted.
  [[nodiscard]] UniqueFd Fuse() const;
  [[nodiscard]] bool IsMounted() const { return fuse_.Valid(); }
  // A daemon served it before.
  [[nodiscard]] bool Resumed() const { return resumed_; }
  [[nodiscard]] const std::string& Dir() const { return dir_; }
  // Why the daemon before this one ended; empty: it was asked to.
  [[nodiscard]] const std::string& Why() const { return why_; }

  // It is mounted by that descriptor: the holder has it when this returns.
  // Throws Error(EPIPE) when it is gone.
  void Mounted(int fuse);
  // The mount answers.
  void Ready();

 private:
  class Holder;
  Hold() = default;

  UniqueFd memory_;
  UniqueFd fuse_;
  bool resumed_ = false;
  std::string dir_;
  std::string cwd_;
  std::string why_;
  UniqueFd to_holder_;
  bool background_ = false;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_HOLDER_H_
