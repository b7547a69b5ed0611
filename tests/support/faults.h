#ifndef SBXFS_TESTS_SUPPORT_FAULTS_H_
#define SBXFS_TESTS_SUPPORT_FAULTS_H_

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace sbxfs {

// Daemons that are started while it lives have tests/support/faults preloaded.
class FaultsPreloaded {
 public:
  FaultsPreloaded() { setenv("LD_PRELOAD", SBXFS_FAULTS_LIBRARY, 1); }
  ~FaultsPreloaded() { unsetenv("LD_PRELOAD"); }
  FaultsPreloaded(const FaultsPreloaded&) = delete;
  FaultsPreloaded& operator=(const FaultsPreloaded&) = delete;
};

// Calls of libvirt that do not come back: of daemons with the faults that are
// started while it lives.
class Hangs {
 public:
  Hangs() : dir_(std::filesystem::path(std::getenv("SBXFS_INSIDE")) / "hangs") {
    std::filesystem::create_directory(dir_);
    setenv("SBXFS_HANGS", dir_.c_str(), 1);
  }
  ~Hangs() {
    unsetenv("SBXFS_HANGS");
    std::filesystem::remove_all(dir_);
  }
  Hangs(const Hangs&) = delete;
  Hangs& operator=(const Hangs&) = delete;

  void Begin(const std::string& call) const {
    std::ofstream(dir_ / call).close();
  }
  void End(const std::string& call) const {
    std::filesystem::remove(dir_ / call);
  }

 private:
  const std::filesystem::path dir_;
};

}  // namespace sbxfs

#endif  // SBXFS_TESTS_SUPPORT_FAULTS_H_
