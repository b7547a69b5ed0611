#ifndef SBXFS_TESTS_SUPPORT_GUEST_MOUNT_H_
#define SBXFS_TESTS_SUPPORT_GUEST_MOUNT_H_

#include <gtest/gtest.h>
#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "backend/util/unique_fd.h"

// Real mounts of qemu:///system, for tests inside tests/support/inside.

namespace sbxfs {

// How a program ended, and what it said.
struct Ended {
  int status = -1;  // exit status; minus the signal that ended it
  std::string out;
  std::string err;
};
[[nodiscard]] Ended RunProgram(
    const std::vector<std::string>& command,
    std::chrono::seconds limit = std::chrono::seconds(300));
// What `virsh -q` says without the newlines at the end; a failure of it is the
// test's.
std::string Virsh(std::vector<std::string> words);

// Asks again and again, for 20 s or `limit`.
[[nodiscard]] bool Eventually(
    const std::function<bool()>& holds,
    std::chrono::milliseconds limit = std::chrono::seconds(20));

[[nodiscard]] std::string ReadText(const std::filesystem::path& path);
// ReadText without the newline at the end.
[[nodiscard]] std::string ReadLine(const std::filesystem::path& path);

// The first child of a process, or -1.
[[nodiscard]] pid_t ChildOf(pid_t parent);

// What a system call came to.
struct Verdict {
  int error = 0;  // errno, or 0
  std::string sentence;
  bool operator==(const Verdict&) const = default;
};
void PrintTo(const Verdict& verdict, std::ostream* out);
// One open, one write, one close. The sentence is what the same open file says
// when it is read afterwards.
Verdict WriteText(const std::filesystem::path& path, const std::string& text,
                  int flags = 0);
// The errno of one system call, which is 0 or -1 in the libc's manner.
Verdict Call(const std::function<int()>& call);

// Another process that writes, so that it can wait and be interrupted.
class Writer {
 public:
  Writer(const std::filesystem::path& path, const std::string& text);
  Writer(Writer&& other) noexcept;
  ~Writer();

  void Signal(int signal) const;
  // Nothing while it still writes.
  [[nodiscard]] std::optional<Verdict> Ended(
      std::chrono::milliseconds limit = std::chrono::seconds(20));
  // Whether it was ended by the signal within a few seconds.
  [[nodiscard]] bool EndedBySignal(int signal);
  // Whether the kernel has it in write(2) now.
  [[nodiscard]] bool Waits() const;

 private:
  pid_t pid_ = -1;
  UniqueFd answer_;
};

// What each sandbox has for itself, seen from outside of its guest.
struct Identities {
  std::set<std::string> macs, ports, keys;
  // Of a sandbox's directory.
  void Add(const std::filesystem::path& box);
};

// A daemon in the foreground and its mount, in a directory of its own.
class GuestMount {
 public:
  // `options` as after -o. Returns when the mount answers; throws
  // std::runtime_error with what the daemon said when there will be none.
  explicit GuestMount(const std::string& options,
                      std::string uri = "qemu:///system");
  ~GuestMount();
  GuestMount(const GuestMount&) = delete;
  GuestMount& operator=(const GuestMount&) = delete;

  [[nodiscard]] const std::filesystem::path& Dir() const { return dir_; }
  // Of the process that holds the mount, and of the one that serves it, which
  // may be none for a moment.
  [[nodiscard]] pid_t Pid() const { return pid_; }
  [[nodiscard]] pid_t Server() const;
  // kill -9 of that: another comes.
  void KillServer();
  // kill -9 of both, and fusermount3 -uz of what that leaves.
  void Crash();
  void Start();
  // Takes note that the daemon ended by itself.
  void Ended();
  // Waits for that; its exit status.
  [[nodiscard]] int EndOfItself();
  // Unmounts and waits; the daemon must end with status 0 and must have
  // logged no error, but for `mayfail`.
  void Stop();
  void ExpectLoggedErrors() { errors_expected_ = true; }

 private:
  void ReadLog();

  const std::string options_;
  const std::string uri_;
  std::filesystem::path dir_;
  std::filesystem::path log_;
  pid_t pid_ = -1;
  bool errors_expected_ = false;
};

// The libvirtd of tests/support/inside.
[[nodiscard]] pid_t LibvirtdPid();
// kill -9; its guests and virtlogd are none of its children's and run on.
void KillLibvirtd();
void StartLibvirtd();
// Starts it unless it answers: libvirtd 9.0 sometimes ends by a use after free
// in its event loop when clients went while it was stopped.
void NeedLibvirtd();

// What sbxfs might leave behind: domains, volumes, listening ports.
struct World {
  std::string domains;
  std::string volumes;
  std::string ports;
  [[nodiscard]] static World Now();
  bool operator==(const World&) const = default;
};
void PrintTo(const World& world, std::ostream* out);
// Whether somebody listens at that port here: the forward of a guest that runs.
[[nodiscard]] bool Listens(const std::string& port);

// One mount, in which the sandboxes are blank guests: they boot a sector that
// halts, and so know nothing of shutting down. Afterwards all sandboxes are
// removed and the world must be as before.
class BlankGuests : public testing::Test {
 protected:
  static constexpr const char* kOptions = "stop_timeout=2,start_timeout=4";

  void SetUp() override;
  void TearDown() override;
  // Other options than kOptions, for a whole suite.
  [[nodiscard]] virtual std::string Options() const { return kOptions; }

  [[nodiscard]] std::filesystem::path Dir() const { return mount_->Dir(); }
  [[nodiscard]] std::filesystem::path Host() const { return Dir() / ".host"; }
  void Mkdir(const std::string& name);
  // Starts it without waiting for what never comes: its ssh.
  void Boot(const std::string& name);
  [[nodiscard]] std::string Status(const std::string& name) const {
    return ReadLine(Dir() / name / "status");
  }
  [[nodiscard]] bool Becomes(
      const std::string& name, const std::string& state,
      std::chrono::milliseconds limit = std::chrono::seconds(20)) const;

  // Waits until libvirt is there again.
  void ExpectConnected() const;

  std::unique_ptr<GuestMount> mount_;
  World before_;
};

// Takes .host/override.yaml out of the pool: nothing in the tree removes it.
void ForgetOverride();

// Removes every sandbox, for good.
void Clear(const std::filesystem::path& dir);

// A disk whose boot sector halts the processor.
[[nodiscard]] std::string BlankDisk();
// Has that .host make new sandboxes blank guests, small ones.
void MakeBlank(const std::filesystem::path& host);
// Whether the long counts are wanted: SBXFS_LONG is set.
[[nodiscard]] bool LongRun();
// Why tests with guests cannot run here; empty when they can.
[[nodiscard]] std::string NoGuestsBecause();

}  // namespace sbxfs

#endif  // SBXFS_TESTS_SUPPORT_GUEST_MOUNT_H_
