// Preloaded into a daemon: at the call that a file counts down to something
// goes wrong. Only calls of sbxfs itself count, and of the C++ library for it.
#include <dlfcn.h>
#include <fcntl.h>
#include <libvirt/libvirt-qemu.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <link.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

// What a call belongs to: those that change something of libvirt's, its other
// ones, and the C library's for files and sockets.
enum class Group { kChanges, kReads, kFiles };

// Whether the address is code of the program or of the C++ library, whose
// calls for files are the program's.
bool IsOurs(const void* address) {
  static const auto ranges = [] {
    std::vector<std::pair<uintptr_t, uintptr_t>> found;
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* data) {
          auto* out = static_cast<decltype(found)*>(data);
          const bool program = out->empty();
          if (!program && std::strstr(info->dlpi_name, "libstdc++") == nullptr)
            return 0;
          for (int i = 0; i < info->dlpi_phnum; ++i) {
            const auto& part = info->dlpi_phdr[i];
            if (part.p_type != PT_LOAD || (part.p_flags & PF_X) == 0) continue;
            const uintptr_t begin = info->dlpi_addr + part.p_vaddr;
            out->emplace_back(begin, begin + part.p_memsz);
          }
          return 0;
        },
        &found);
    return found;
  }();
  const auto at = reinterpret_cast<uintptr_t>(address);
  for (const auto& [begin, end] : ranges) {
    if (at >= begin && at < end) return true;
  }
  return false;
}

// What is to go wrong with this call; mostly nothing. $SBXFS_FAULTS names a
// file with the number of calls to let through, plus one, what then goes wrong
// (`kill` where nothing is said), and which calls count: `all` of libvirt's or
// `files` instead of those that change something. Nothing happens while the
// file is not there; afterwards it says 0 and the call. One that hangs goes on
// when the file is gone.
std::string Fault(const char* name, Group group, const void* caller) {
  static std::mutex mutex;
  const char* path = std::getenv("SBXFS_FAULTS");
  if (path == nullptr || access(path, F_OK) != 0 || !IsOurs(caller)) return "";
  std::unique_lock<std::mutex> lock(mutex);
  FILE* file = std::fopen(path, "r+");
  if (file == nullptr) return "";
  int left = 0;
  char kind[16] = "kill";
  char scope[16] = "";
  const bool read = std::fscanf(file, "%d %15s %15s", &left, kind, scope) > 0;
  const std::string_view counted = scope;
  const bool counts = group == Group::kFiles
                          ? counted == "files"
                          : counted != "files" &&
                                (group == Group::kChanges || counted == "all");
  std::string fault;
  if (read && left > 0 && counts) {
    if (left == 1) fault = kind;
    std::rewind(file);
    std::fprintf(file, "%d %s %s %s\n", left - 1, kind,
                 *scope == '\0' ? "changes" : scope, left == 1 ? name : "");
    std::fflush(file);
    (void)!ftruncate(fileno(file), std::ftell(file));
  }
  std::fclose(file);
  lock.unlock();
  if (fault == "kill") {
    // With the one that holds the mount, who would start another.
    kill(getppid(), SIGKILL);
    kill(getpid(), SIGKILL);
  }
  while (fault == "hang" && access(path, F_OK) == 0) usleep(10000);
  return fault;
}

// A call hangs for as long as the file of its name is in $SBXFS_HANGS.
void Hang(const char* name) {
  const char* directory = std::getenv("SBXFS_HANGS");
  if (directory == nullptr) return;
  const std::string path = std::string(directory) + '/' + name;
  while (access(path.c_str(), F_OK) == 0) usleep(10000);
}

template <typename Function>
Function Next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

// libvirt keeps the error of a thread; it exports this for its own parts.
void SetError(int code, int domain, const char* message, int number) {
  static const auto set =
      reinterpret_cast<void (*)(virErrorPtr)>(dlsym(RTLD_NEXT, "virSetError"));
  virError error{};
  error.code = code;
  error.domain = domain;
  error.level = VIR_ERR_ERROR;
  error.message = const_cast<char*>(message);
  error.int1 = number;
  if (set != nullptr) set(&error);
}

// As when libvirtd ends: all connections to it are gone.
void LoseConnections() {
  for (int fd = 3; fd < 1024; ++fd) {
    sockaddr_un peer{};
    socklen_t size = sizeof peer;
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0 ||
        peer.sun_family != AF_UNIX ||
        std::strstr(peer.sun_path, "libvirt") == nullptr) {
      continue;
    }
    shutdown(fd, SHUT_RDWR);
  }
}

// Sets the error and says so when the call is not to be made.
bool Fails(std::string_view fault) {
  if (fault == "error") {
    SetError(VIR_ERR_INTERNAL_ERROR, VIR_FROM_QEMU,
             "internal error: injected by a test", 0);
  } else if (fault == "nomemory") {
    SetError(VIR_ERR_NO_MEMORY, VIR_FROM_NONE, "out of memory", 0);
  } else if (fault == "nospace") {
    SetError(VIR_ERR_SYSTEM_ERROR, VIR_FROM_STORAGE,
             "cannot write: No space left on device", ENOSPC);
  } else if (fault == "busy") {
    SetError(VIR_ERR_OPERATION_TIMEOUT, VIR_FROM_QEMU,
             "Timed out during operation: cannot acquire state change lock", 0);
  } else {
    return false;
  }
  return true;
}

// The same of the C library's calls.
bool FailsWithErrno(std::string_view fault) {
  constexpr std::pair<std::string_view, int> kErrors[] = {
      {"eio", EIO}, {"enospc", ENOSPC}, {"emfile", EMFILE}};
  for (const auto& [name, number] : kErrors) {
    if (fault != name) continue;
    errno = number;
    return true;
  }
  return false;
}

template <typename Result>
Result Failure() {
  if constexpr (std::is_pointer_v<Result>) {
    return nullptr;
  } else {
    return static_cast<Result>(-1);
  }
}

template <typename Tag, typename Result, typename... Arguments>
Result ThroughLibvirt(Arguments... arguments) {
  static const auto next = Next<Result (*)(Arguments...)>(Tag::kName);
  Hang(Tag::kName);
  const std::string fault =
      Fault(Tag::kName, Tag::kGroup, __builtin_return_address(0));
  if (fault.empty()) return next(arguments...);
  if (Fails(fault)) return Failure<Result>();
  if (fault == "delay") sleep(1);
  if (fault == "lost") LoseConnections();
  if (fault == "late") {
    // The call was made, and its answer did not come any more.
    (void)next(arguments...);
    LoseConnections();
    SetError(VIR_ERR_INTERNAL_ERROR, VIR_FROM_RPC,
             "internal error: client socket is closed", 0);
    return Failure<Result>();
  }
  return next(arguments...);
}

template <typename Tag, typename Result, typename... Arguments>
Result ThroughLibc(Arguments... arguments) {
  static const auto next = Next<Result (*)(Arguments...)>(Tag::kName);
  const std::string fault =
      Fault(Tag::kName, Group::kFiles, __builtin_return_address(0));
  // posix_spawn returns its error.
  if (FailsWithErrno(fault)) {
    return Tag::kReturnsErrno ? static_cast<Result>(errno) : Failure<Result>();
  }
  return next(arguments...);
}

template <typename Tag, typename Result, typename... Arguments>
constexpr auto LibvirtSeam(Result (*)(Arguments...)) {
  return &ThroughLibvirt<Tag, Result, Arguments...>;
}
template <typename Tag, typename Result, typename... Arguments>
constexpr auto LibcSeam(Result (*)(Arguments...)) {
  return &ThroughLibc<Tag, Result, Arguments...>;
}

}  // namespace

// A function of that name, which goes on to the template that its type chose:
// so no parameters need to be written down.
#ifdef __aarch64__
#define SBXFS_JUMP(name)    \
  "  adrp x16, Slot_" #name \
  "\n"                      \
  "  ldr x16, [x16, #:lo12:Slot_" #name "]\n  br x16\n"
#else
#define SBXFS_JUMP(name) "  jmp *Slot_" #name "(%rip)\n"
#endif
#define SBXFS_SEAM(name, make, ...)                                        \
  namespace {                                                              \
  struct Tag_##name {                                                      \
    [[maybe_unused]] static constexpr const char* kName = #name;           \
    __VA_ARGS__                                                            \
  };                                                                       \
  }                                                                        \
  extern "C" {                                                             \
  __attribute__((used, visibility("hidden"))) constinit auto Slot_##name = \
      make<Tag_##name>(static_cast<decltype(&::name)>(nullptr));           \
  }                                                                        \
  asm(".text\n.globl " #name "\n.type " #name ", %function\n" #name        \
      ":\n" SBXFS_JUMP(name));
#define SBXFS_CHANGES(name)     \
  SBXFS_SEAM(name, LibvirtSeam, \
             static constexpr Group kGroup = Group::kChanges;)
#define SBXFS_READS(name) \
  SBXFS_SEAM(name, LibvirtSeam, static constexpr Group kGroup = Group::kReads;)
#define SBXFS_FILES(name) \
  SBXFS_SEAM(name, LibcSeam, static constexpr bool kReturnsErrno = false;)
#define SBXFS_SPAWNS(name) \
  SBXFS_SEAM(name, LibcSeam, static constexpr bool kReturnsErrno = true;)

#include "tests/support/faults/calls.h"

// Of writes those to files: events and pipes of this process do not fail.
extern "C" ssize_t write(int fd, const void* bytes, size_t size) {
  static const auto next = Next<ssize_t (*)(int, const void*, size_t)>("write");
  struct stat info {};
  if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) &&
      FailsWithErrno(
          Fault("write", Group::kFiles, __builtin_return_address(0)))) {
    return -1;
  }
  return next(fd, bytes, size);
}

// These take a mode only when they create.
extern "C" int open64(const char* path, int flags, ...) {
  static const auto next = Next<int (*)(const char*, int, mode_t)>("open64");
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  if (FailsWithErrno(
          Fault("open64", Group::kFiles, __builtin_return_address(0)))) {
    return -1;
  }
  return next(path, flags, mode);
}

extern "C" int openat64(int directory, const char* path, int flags, ...) {
  static const auto next =
      Next<int (*)(int, const char*, int, mode_t)>("openat64");
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  if (FailsWithErrno(
          Fault("openat64", Group::kFiles, __builtin_return_address(0)))) {
    return -1;
  }
  return next(directory, path, flags, mode);
}
