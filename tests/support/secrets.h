#ifndef SBXFS_TESTS_SUPPORT_SECRETS_H_
#define SBXFS_TESTS_SUPPORT_SECRETS_H_

#include <atomic>
#include <filesystem>
#include <string>
#include <thread>

namespace sbxfs {

// What a test gives a sandbox as a secret: tests/secrets/scan knows it.
[[nodiscard]] std::string Canary(const std::string& rest);

// Has tests/secrets/scan look through all that there is now, the pool, libvirt,
// logs, processes, and what the mount says of its sandboxes.
void ExpectNoSecrets(const std::filesystem::path& mount);

// Looks at all processes' command lines and environments again and again for
// as long as it lives: none may have the canary, but this process's own.
class ProcessWatch {
 public:
  ProcessWatch();
  ~ProcessWatch();
  ProcessWatch(const ProcessWatch&) = delete;
  ProcessWatch& operator=(const ProcessWatch&) = delete;

 private:
  void Watch();

  std::atomic<bool> over_{false};
  std::string found_;
  int looks_ = 0;
  std::thread thread_;
};

}  // namespace sbxfs

#endif  // SBXFS_TESTS_SUPPORT_SECRETS_H_
