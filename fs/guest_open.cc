#include "fs/guest_open.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>

namespace sbxfs {

// Closing asks the guest, which is not to be waited for here.
GuestOpen::~GuestOpen() {
  const Reply<Done> closed;
  path_->place()->Ask(
      closed, [opened = std::exchange(opened_, nullptr)](FileTree&) mutable {
        opened.reset();
        return Done{};
      });
}

void GuestOpen::Read(const Caller&, uint64_t offset, size_t size,
                     Reply<std::string> reply) {
  path_->place()->Ask(reply, [opened = opened_, offset, size](FileTree&) {
    return opened->Read(offset, size);
  });
}

void GuestOpen::Write(const Caller& caller, uint64_t offset, std::string bytes,
                      int, Reply<Done> reply) {
  if (caller.repeated && !MayRepeat(bytes)) {
    throw Error(EIO, fmt::format("Cannot tell whether the end of '{}' was "
                                 "written: the daemon of this mount ended "
                                 "meanwhile; look, and write it again if it "
                                 "was not",
                                 path_->Path()));
  }
  path_->place()->Ask(
      reply, [opened = opened_, offset, bytes = std::move(bytes)](FileTree&) {
        opened->Write(offset, bytes);
        return Done{};
      });
}

void GuestOpen::Truncate(const Caller&, uint64_t size, Reply<Done> reply) {
  path_->place()->Ask(reply, [opened = opened_, size](FileTree&) {
    opened->Resize(size);
    return Done{};
  });
}

void GuestOpen::Sync(const Caller&, Reply<Done> reply) {
  path_->place()->Ask(reply, [opened = opened_](FileTree&) {
    opened->Sync();
    return Done{};
  });
}

bool GuestOpen::MayRepeat(const std::string&) {
  return (flags_ & O_APPEND) == 0;
}

void GuestOpen::Look(Reply<FileFacts> reply) {
  path_->place()->Ask(reply,
                      [opened = opened_](FileTree&) { return opened->Look(); });
}

}  // namespace sbxfs
