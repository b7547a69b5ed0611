#ifndef SBXFS_TESTS_QEMU_REFUSALS_H_
#define SBXFS_TESTS_QEMU_REFUSALS_H_

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>

#include "tests/support/guest_mount.h"

namespace sbxfs {

// What is refused, each with its errno and its whole sentence.
class RefusalTest : public BlankGuests {
 protected:
  // The newest line of .host/error without its time.
  [[nodiscard]] std::string HostError() const {
    const std::string text = ReadText(Host() / "error");
    const std::string line = text.substr(0, text.find('\n'));
    const auto at = line.find("Cannot ");
    return at == std::string::npos ? line : line.substr(at);
  }
  void Refused(const Verdict& verdict, int error,
               const std::string& sentence) const {
    Same(verdict, error, HostError(), sentence);
  }
  // With its sentence in the sandbox's error.
  void RefusedIn(const std::string& name, const Verdict& verdict, int error,
                 const std::string& sentence) const {
    Same(verdict, error, ReadLine(Dir() / name / "error"), sentence);
  }
  // By a process of its own: who was refused a removal is refused others for a
  // while.
  [[nodiscard]] static Verdict Apart(const std::function<Verdict()>& act) {
    const pid_t pid = fork();
    if (pid == 0) _exit(act().error);
    int status = 0;
    waitpid(pid, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : EFAULT, ""};
  }
  [[nodiscard]] Verdict Make(const std::string& name) const {
    return Call([&] { return mkdir((Dir() / name).c_str(), 0700); });
  }
  [[nodiscard]] Verdict Move(const std::string& from,
                             const std::string& to) const {
    return Call(
        [&] { return rename((Dir() / from).c_str(), (Dir() / to).c_str()); });
  }
  [[nodiscard]] Verdict Unlink(const std::string& path) const {
    return Apart(
        [&] { return Call([&] { return unlink((Dir() / path).c_str()); }); });
  }
  [[nodiscard]] Verdict Rmdir(const std::string& path) const {
    return Call([&] { return rmdir((Dir() / path).c_str()); });
  }
  [[nodiscard]] Verdict Write(const std::string& path,
                              const std::string& text) const {
    return WriteText(Dir() / path, text);
  }

 private:
  static void Same(const Verdict& verdict, int error, const std::string& told,
                   const std::string& sentence) {
    EXPECT_EQ(verdict.error, error)
        << (verdict.error == 0 ? "success" : strerrorname_np(verdict.error))
        << ": " << sentence;
    EXPECT_EQ(told, sentence);
  }
};

}  // namespace sbxfs

#endif  // SBXFS_TESTS_QEMU_REFUSALS_H_
