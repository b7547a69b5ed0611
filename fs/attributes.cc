#include "fs/attributes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "fs/text_file.h"
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
      time = LogOf(view, row)->Last();
      break;
    case Clock::kConnected:
      time = view.host->since;
      break;
    case Clock::kDefaults:
      time = view.host->defaults_time;
      break;
    case Clock::kOverrides:
      time = view.host->overrides_time;
      break;
  }
  if (time != Time()) return time;
  return view.sandbox ? view.sandbox->created : view.host->since;
}

}  // namespace

mode_t FileMode(mode_t row, mode_t dir) { return row & (0700 | dir); }

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
    const auto set = view.sandbox->files.find(std::string(row.name));
    if (set != view.sandbox->files.end()) {
      stat.st_uid = set->second.uid.value_or(stat.st_uid);
      stat.st_gid = set->second.gid.value_or(stat.st_gid);
      if (set->second.mode) stat.st_mode = type | (*set->second.mode & mode);
    }
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

void ChangeRow(const View& view, const Row& row, const struct stat& now,
               const FileRights& rights, bool lenient, Reply<Done> reply) {
  FileRights kept;
  if (rights.uid && *rights.uid != now.st_uid) kept.uid = rights.uid;
  if (rights.gid && *rights.gid != now.st_gid) kept.gid = rights.gid;
  if (rights.mode) {
    const mode_t wanted = *rights.mode & 0777;
    const mode_t beyond =
        wanted & ~row.mode & (S_ISDIR(now.st_mode) ? 0777 : 0666);
    if (beyond != 0 && !lenient) {
      throw Error(EPERM, fmt::format("Cannot give '{}' mode {:04o}: {:04o} is "
                                     "the most it can have",
                                     row.name, wanted, row.mode));
    }
    if ((wanted & row.mode) != (now.st_mode & 0777)) {
      kept.mode = wanted & row.mode;
    }
  }
  if (kept == FileRights()) {
    reply.Ok();
    return;
  }
  if (!view.sandbox || row.for_all) {
    throw Error(EPERM, fmt::format("Cannot change owner or mode of '{}': they "
                                   "belong to the tree",
                                   row.name));
  }
  if (view.sandbox->trashed) {
    throw Error(EPERM, fmt::format("Cannot change owner or mode of '{}': "
                                   "sandbox '{}' is in the trash; mv it out "
                                   "first",
                                   row.name, view.sandbox->name));
  }
  view.tree.backend.SetRights(view.reader, view.sandbox->uuid,
                              std::string(row.name), kept, std::move(reply));
}

struct stat SandboxStat(const Sandbox& sandbox) {
  struct stat stat {};
  stat.st_mode = S_IFDIR | (sandbox.mode & 07777);
  stat.st_nlink = 2;
  stat.st_uid = sandbox.uid;
  stat.st_gid = sandbox.gid;
  stat.st_blksize = 4096;
  // What its snapshots show as their own is not counted twice.
  uint64_t bytes = sandbox.usage.disk_bytes;
  for (const auto& [tag, one] : sandbox.snapshots) {
    bytes -= std::min(bytes, one.size);
  }
  stat.st_blocks = static_cast<blkcnt_t>(bytes / 512);
  SetTime(stat, sandbox.used != Time() ? sandbox.used : sandbox.created);
  return stat;
}

}  // namespace sbxfs
