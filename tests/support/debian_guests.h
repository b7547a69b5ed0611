#ifndef SBXFS_TESTS_SUPPORT_DEBIAN_GUESTS_H_
#define SBXFS_TESTS_SUPPORT_DEBIAN_GUESTS_H_

#include <filesystem>
#include <memory>
#include <string>

#include "tests/support/guest_mount.h"

namespace sbxfs {

// The image that guests are booted from: SBXFS_TEST_IMAGE.
[[nodiscard]] std::filesystem::path GuestImage();
// Why guests cannot be booted here; empty when they can.
[[nodiscard]] std::string NoBootBecause();

// One mount with the image as .host/images/debian-12. Afterwards all sandboxes
// are removed, and the image.
class DebianGuests : public testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  [[nodiscard]] std::filesystem::path Dir() const { return mount_->Dir(); }
  [[nodiscard]] std::filesystem::path Host() const { return Dir() / ".host"; }
  // Writes a line and waits, as long as a boot takes.
  void Do(const std::string& file, const std::string& text);
  // What a script says in that guest, by ssh, without the newline at the end.
  std::string In(const std::string& name, const std::string& script);

  std::unique_ptr<GuestMount> mount_;
};

}  // namespace sbxfs

#endif  // SBXFS_TESTS_SUPPORT_DEBIAN_GUESTS_H_
