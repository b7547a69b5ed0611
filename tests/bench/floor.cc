// The least that a FUSE file can be: one directory with one file `status`,
// whose text is in memory. What sbxfs takes more than this is its own.
//
//   bench_floor DIR      in the foreground, until it is unmounted

#include <fuse_lowlevel.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

namespace {

constexpr fuse_ino_t kFile = 2;
constexpr std::string_view kText = "stopped\n";

struct stat StatOf(fuse_ino_t number) {
  struct stat stat {};
  stat.st_ino = number;
  stat.st_nlink = 1;
  stat.st_mode = number == kFile ? S_IFREG | 0444 : S_IFDIR | 0555;
  stat.st_size = number == kFile ? kText.size() : 0;
  return stat;
}

void Lookup(fuse_req_t request, fuse_ino_t, const char* name) {
  if (std::strcmp(name, "status") != 0) {
    fuse_reply_err(request, ENOENT);
    return;
  }
  // As in sbxfs nothing is cached by the kernel.
  fuse_entry_param entry{};
  entry.ino = kFile;
  entry.attr = StatOf(kFile);
  fuse_reply_entry(request, &entry);
}

void GetAttr(fuse_req_t request, fuse_ino_t number, fuse_file_info*) {
  const struct stat stat = StatOf(number);
  fuse_reply_attr(request, &stat, 0);
}

void Open(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
  info->direct_io = 1;
  fuse_reply_open(request, info);
}

void Read(fuse_req_t request, fuse_ino_t, size_t size, off_t offset,
          fuse_file_info*) {
  const auto from = std::min(static_cast<std::size_t>(offset), kText.size());
  const std::string_view text = kText.substr(from, size);
  fuse_reply_buf(request, text.data(), text.size());
}

int Run(const char* program, const char* dir) {
  std::array<char*, 1> words = {const_cast<char*>(program)};
  fuse_args args = FUSE_ARGS_INIT(1, words.data());
  fuse_lowlevel_ops ops{};
  ops.lookup = Lookup;
  ops.getattr = GetAttr;
  ops.open = Open;
  ops.read = Read;
  fuse_session* session = fuse_session_new(&args, &ops, sizeof ops, nullptr);
  if (session == nullptr || fuse_set_signal_handlers(session) != 0 ||
      fuse_session_mount(session, dir) != 0) {
    return 1;
  }
  fuse_session_loop(session);
  fuse_session_unmount(session);
  fuse_remove_signal_handlers(session);
  fuse_session_destroy(session);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return argc == 2 ? Run(argv[0], argv[1]) : 1;
}
