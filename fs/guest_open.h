#ifndef SBXFS_FS_GUEST_OPEN_H_
#define SBXFS_FS_GUEST_OPEN_H_

#include <memory>
#include <string>

#include "fs/guest_place.h"
#include "fs/node.h"

namespace sbxfs {

// A file of a guest that is open. What is written is in the guest when the
// write is answered, so that nothing is lost with this daemon.
class GuestOpen : public OpenFile {
 public:
  using OpenedPtr = std::shared_ptr<FileTree::Opened>;
  GuestOpen(GuestPathPtr path, OpenedPtr opened, int flags, bool cached)
      : path_(std::move(path)),
        opened_(std::move(opened)),
        flags_(flags),
        cached_(cached),
        at_rest_(path_->place()->AtRest()) {}
  ~GuestOpen() override;
  GuestOpen(const GuestOpen&) = delete;
  GuestOpen& operator=(const GuestOpen&) = delete;

  void Read(const Caller& caller, uint64_t offset, size_t size,
            Reply<std::string> reply) override;
  void Write(const Caller& caller, uint64_t offset, std::string bytes,
             int flags, Reply<Done> reply) override;
  void Truncate(const Caller& caller, uint64_t size,
                Reply<Done> reply) override;
  void Sync(const Caller& caller, Reply<Done> reply) override;
  [[nodiscard]] bool Cached() const override { return cached_; }
  // What goes to a place goes there twice, what goes to the end does not.
  [[nodiscard]] bool MayRepeat(const std::string&) override;

  // False once it is known that the guest that it was opened in is gone.
  [[nodiscard]] bool IsCurrent() const { return opened_->IsCurrent(); }
  // Whether it is a disk's, with no guest that runs.
  [[nodiscard]] bool AtRest() const { return at_rest_; }
  // Attributes of the file, whatever its name leads to.
  void Look(Reply<FileFacts> reply);

 private:
  const GuestPathPtr path_;
  OpenedPtr opened_;
  const int flags_;
  const bool cached_;
  const bool at_rest_;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_GUEST_OPEN_H_
