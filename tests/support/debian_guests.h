#ifndef SBXFS_TESTS_SUPPORT_DEBIAN_GUESTS_H_
#define SBXFS_TESTS_SUPPORT_DEBIAN_GUESTS_H_

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/guest_mount.h"

namespace sbxfs {

// The image that guests are booted from: SBXFS_TEST_IMAGE.
[[nodiscard]] std::filesystem::path GuestImage();
// Keeps the image and its template of this libvirtd's pool for other test
// programs, where SBXFS_TEST_POOL names a place for that.
void KeepTemplate();
// Puts them into the pool of this libvirtd, before there is one, as they were.
// False where there are none: what boots then had better be cold.
[[nodiscard]] bool BringTemplate();
// What its guests are like.
inline constexpr char kWarmConfig[] =
    "memory: 512MiB\ndisk: 4GiB\ncpus: 1\nuser: {name: joe}\n";
// What ssh_cert of a sandbox's directory says of that public key, as sbxfs(5)
// has it for a shell.
[[nodiscard]] std::string CertificateOf(const std::filesystem::path& box,
                                        const std::filesystem::path& key);
class Stopwatch {
 public:
  [[nodiscard]] double Seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() -
                                         begin_)
        .count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ =
      std::chrono::steady_clock::now();
};

// Why guests cannot be booted here; empty when they can.
[[nodiscard]] std::string NoBootBecause();

// One mount with the image as .host/images/debian-12. Afterwards all sandboxes
// are removed, and the image.
class DebianGuests : public testing::Test {
 protected:
  enum class Boots { kCold, kWarmIfItCan, kLeavesATemplate };
  explicit DebianGuests(Boots boots = Boots::kCold) : boots_(boots) {}
  void SetUp() override;
  void TearDown() override;

  [[nodiscard]] std::filesystem::path Dir() const { return mount_->Dir(); }
  [[nodiscard]] std::filesystem::path Host() const { return Dir() / ".host"; }
  // Writes a line and waits, as long as a boot takes.
  void Do(const std::string& file, const std::string& text);
  // What a script says in that guest, by ssh, without the newline at the end.
  std::string In(const std::string& name, const std::string& script);

  // A sandbox with that config.yaml.
  void Make(const std::string& name, const std::string& config);
  // What a script says in that guest, by the agent, as a job.
  std::string Job(const std::string& name, const std::string& script);
  // Whether a start that is under way comes to say that of itself.
  [[nodiscard]] bool Says(const std::string& name, const std::string& words);
  // The pool's files with that in their names.
  static std::vector<std::filesystem::path> Volumes(std::string_view kind);
  // All of what tells one guest from another.
  struct Names {
    std::string host, machine, mac, random;
    bool operator==(const Names&) const = default;
  };
  // Looks at its clock and its address as well.
  Names NamesOf(const std::string& name);

  std::unique_ptr<GuestMount> mount_;
  const Boots boots_;
};

}  // namespace sbxfs

#endif  // SBXFS_TESTS_SUPPORT_DEBIAN_GUESTS_H_
