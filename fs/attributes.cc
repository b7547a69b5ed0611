#include "fs/attributes.h"

#include <algorithm>

#include "fs/tree.h"

namespace sbxfs {
namespace {

Time TimeOf(const View& view, const Row& row) {
  Time time;
  switch (row.clock) {
    case Clock::kUsed:
      time = view.sandbox ? view.sandbox->used : view.host->since;
      break;
    case Clock::kState:
      time = view.sandbox->state_since;
      break;
    case Clock::kConfig:
      time = view.sandbox->config_time;
      break;
    case Clock::kLastEvent:
      time = view.tree.events
                 .Extent(view.sandbox ? view.sandbox->uuid : std::string())
                 .last;
      break;
    case Clock::kConnected:
      time = view.host->since;
      break;
    case Clock::kDefaults:
      time = view.host->defaults_time;
      break;
  }
  if (time != Time()) return time;
  return view.sandbox ? view.sandbox->created : view.host->since;
}

}  // namespace

mode_t FileMode(mode_t row, mode_t dir) {
  mode_t mask = 0700;
  mask |= dir & 0011;  // of directories
  if ((dir & 0050) != 0) mask |= 0040;
  if ((dir & 0020) != 0) mask |= 0020;
  if ((dir & 0005) != 0) mask |= 0004;
  if ((dir & 0002) != 0) mask |= 0002;
  return row & mask;
}

void SetSize(struct stat& stat, uint64_t size) {
  stat.st_size = static_cast<off_t>(size);
  stat.st_blocks = static_cast<blkcnt_t>((size + 511) / 512);
}

void SetTime(struct stat& stat, Time time) {
  using std::chrono::nanoseconds;
  const auto since =
      std::max(std::chrono::duration_cast<nanoseconds>(time.time_since_epoch()),
               nanoseconds(0));
  stat.st_mtim.tv_sec = since.count() / 1000000000;
  stat.st_mtim.tv_nsec = since.count() % 1000000000;
  stat.st_atim = stat.st_ctim = stat.st_mtim;
}

struct stat OwnStat(const Tree& tree, mode_t mode, Time time) {
  struct stat stat {};
  stat.st_mode = mode;
  stat.st_nlink = S_ISDIR(mode) ? 2 : 1;
  stat.st_uid = tree.options.uid;
  stat.st_gid = tree.options.gid;
  stat.st_blksize = 4096;
  SetTime(stat, time);
  return stat;
}

struct stat RowStat(const View& view, const Row& row, uint64_t size) {
  const mode_t type = row.form == Form::kDirectory ? S_IFDIR : S_IFREG;
  struct stat stat = OwnStat(view.tree, type | row.mode, TimeOf(view, row));
  if (view.sandbox) {
    mode_t mode = row.mode;
    if (view.sandbox->trashed) mode &= ~mode_t{0222};
    stat.st_uid = view.sandbox->uid;
    stat.st_gid = view.sandbox->gid;
    stat.st_mode = type | FileMode(mode, view.sandbox->mode);
  }
  // ssh refuses a configuration that belongs to another user than its own or
  // root.
  if (row.for_all) {
    stat.st_uid = 0;
    stat.st_gid = 0;
    stat.st_mode = type | row.mode;
  }
  SetSize(stat, size);
  return stat;
}

struct stat SandboxStat(const Sandbox& sandbox) {
  struct stat stat {};
  stat.st_mode = S_IFDIR | (sandbox.mode & 07777);
  stat.st_nlink = 2;
  stat.st_uid = sandbox.uid;
  stat.st_gid = sandbox.gid;
  stat.st_blksize = 4096;
  stat.st_blocks = static_cast<blkcnt_t>(sandbox.usage.disk_bytes / 512);
  SetTime(stat, sandbox.used != Time() ? sandbox.used : sandbox.created);
  return stat;
}

}  // namespace sbxfs
