#include "tests/support/guest_disk.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <sstream>

#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

constexpr int kBlock = 64 * 1024;

bool IsOn(const std::string& domain) {
  const std::string state = Virsh({"domstate", domain});
  return state == "running" || state == "paused";
}

// The monitor says nothing to it: QEMU prints into its log.
void Tell(const std::string& domain, const std::string& command) {
  EXPECT_EQ(Virsh({"qemu-monitor-command", domain, "--hmp",
                   fmt::format("qemu-io -d "
                               "/machine/peripheral/virtio-disk0/"
                               "virtio-backend \"{}\"",
                               command)}),
            "");
}

bool SaidDone(const std::string& said) {
  return said.find(fmt::format("{}/{} bytes", kBlock, kBlock)) !=
             std::string::npos &&
         said.find("verification failed") == std::string::npos;
}

std::string Command(const char* verb, int block, int byte) {
  return fmt::format("{} -P {} {} {}", verb, byte, block * kBlock, kBlock);
}

}  // namespace

std::string DiskPath(const std::string& domain) {
  std::istringstream lines(Virsh({"domblklist", domain}));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string target;
    std::string source;
    words >> target >> source;
    if (target != "vda") continue;
    return source.starts_with("/")
               ? source
               : Virsh({"vol-path", source, "--pool", "sbxfs"});
  }
  ADD_FAILURE() << domain << " has no disk";
  return "";
}

void Fill(const std::string& domain, int block, int byte) {
  const std::string command = Command("write", block, byte);
  if (IsOn(domain)) {
    Tell(domain, command);
    EXPECT_TRUE(Holds(domain, block, byte)) << domain;
    return;
  }
  const Ended ended =
      RunProgram({"qemu-io", "-f", "qcow2", "-c", command, DiskPath(domain)});
  EXPECT_TRUE(SaidDone(ended.out)) << ended.out << ended.err;
}

bool Holds(const std::string& domain, int block, int byte) {
  if (IsOn(domain)) Tell(domain, "flush");
  return FileHolds(DiskPath(domain), block, byte);
}

bool FileHolds(const std::string& path, int block, int byte) {
  const Ended ended = RunProgram(
      {"qemu-io", "-r", "-U", "-c", Command("read", block, byte), path});
  return SaidDone(ended.out);
}

}  // namespace sbxfs
