#include "fs/kernel_cache.h"

#include <chrono>
#include <utility>

namespace sbxfs {
namespace {

// An answer of before may be under way to a caller that was not let run yet,
// and an inode that is new to the kernel cannot be told of before that.
constexpr std::chrono::milliseconds kUnderWay{50};

}  // namespace

void KernelCache::Changed(const std::string& uuid) {
  {
    MutexLock lock(mutex_);
    const bool posted = !changed_.empty();
    changed_.insert(uuid);
    if (posted) return;
  }
  timer_.After({}, [this] { Post(); });
}

void KernelCache::Post() {
  Subjects subjects;
  {
    MutexLock lock(mutex_);
    subjects.swap(changed_);
  }
  Tell(subjects);
  timer_.After(kUnderWay,
               [this, subjects = std::move(subjects)] { Tell(subjects); });
}

void KernelCache::Tell(const Subjects& subjects) {
  auto tell = [this](uint64_t number) {
    // Fails for one that the kernel has just forgotten.
    fuse_lowlevel_notify_inval_inode(session_, number, -1, 0);
  };
  tell(InodeTable::kRoot);  // it shows how many there are, and the latest
  for (const auto& uuid : subjects) {
    for (const uint64_t number : inodes_.Steady(uuid)) tell(number);
  }
}

}  // namespace sbxfs
