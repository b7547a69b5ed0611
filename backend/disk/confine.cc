#include "backend/disk/confine.h"

#include <fmt/format.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <vector>

#include "backend/util/error.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SBXFS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define SBXFS_SANITIZED 1
#endif
#endif

namespace sbxfs {
namespace {

#if defined(__x86_64__)
constexpr unsigned kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr unsigned kArchitecture = AUDIT_ARCH_AARCH64;
#elif defined(__riscv) && __riscv_xlen == 64
constexpr unsigned kArchitecture = AUDIT_ARCH_RISCV64;
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
constexpr unsigned kArchitecture = AUDIT_ARCH_PPC64LE;
#else
// Whose system calls are not known here.
constexpr unsigned kArchitecture = 0;
#endif

constexpr rlim_t kMostMemory = 384 << 20;

// Those that a program that computes, reads and writes comes to by glibc.
constexpr int kAllowed[] = {
    __NR_read,    __NR_write,      __NR_recvfrom,      __NR_sendto,
    __NR_ppoll,   __NR_brk,        __NR_munmap,        __NR_mremap,
    __NR_madvise, __NR_futex,      __NR_clock_gettime, __NR_getrandom,
    __NR_exit,    __NR_exit_group, __NR_rt_sigreturn,  __NR_restart_syscall,
#ifdef __NR_poll
    __NR_poll,
#endif
#ifdef __NR_time
    __NR_time,
#endif
#ifdef __NR_recv
    __NR_recv,    __NR_send,
#endif
};

void Limit(__rlimit_resource which, rlim_t most) {
  const rlimit limit{most, most};
  setrlimit(which, &limit);
}

#ifndef SBXFS_SANITIZED
std::vector<sock_filter> Filter() {
  const auto load = [](size_t offset) {
    return sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                static_cast<unsigned>(offset));
  };
  const sock_filter kill = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  const sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  std::vector<sock_filter> filter = {
      load(offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0),
      kill,
      load(offsetof(seccomp_data, nr)),
  };
  for (const int number : kAllowed) {
    filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                              static_cast<unsigned>(number), 0, 1));
    filter.push_back(allow);
  }
  // Memory, but none that can be run.
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  constexpr size_t kLow = 4;
#else
  constexpr size_t kLow = 0;
#endif
  filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mmap, 1, 0));
  filter.push_back(kill);
  filter.push_back(load(offsetof(seccomp_data, args[2]) + kLow));
  filter.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1));
  filter.push_back(kill);
  filter.push_back(allow);
  return filter;
}
#endif

}  // namespace

bool CanConfine() {
#ifdef SBXFS_SANITIZED
  return false;
#else
  return true;
#endif
}

void Confine() {
  Limit(RLIMIT_CORE, 0);
#ifndef SBXFS_SANITIZED
  Limit(RLIMIT_DATA, kMostMemory);
  std::vector<sock_filter> filter = Filter();
  const sock_fprog program{static_cast<unsigned short>(filter.size()),
                           filter.data()};
  errno = EOPNOTSUPP;
  if (kArchitecture == 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    throw Error(EPERM,
                fmt::format("Cannot read the disk: its reader cannot be "
                            "confined by seccomp: {}; start the sandbox to see "
                            "its files",
                            std::strerror(errno)));
  }
#else
  (void)kArchitecture;
  (void)kAllowed;
  (void)kMostMemory;
#endif
}

}  // namespace sbxfs
