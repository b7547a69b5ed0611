#ifndef SBXFS_BACKEND_GUEST_SEED_H_
#define SBXFS_BACKEND_GUEST_SEED_H_

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/guest/keys.h"

namespace sbxfs {

// A NIC of the guest's beside the user-mode one.
struct SeedNic {
  std::string interface;
  std::string mac;
  unsigned metric = 100;  // of its routes
};

// What a guest is told by cloud-init's NoCloud: most of it counts at the first
// boot of an instance alone.
struct SeedInput {
  std::string instance_id;
  std::string hostname;
  std::string user;
  std::optional<unsigned> uid;
  std::string home, shell, comment;  // empty: the distribution's
  std::vector<std::string> authorized_keys;
  std::optional<KeyPair> host_key;  // unset: the guest keeps what it has
  std::string mac;                  // of the user-mode NIC
  std::vector<SeedNic> nics;
  // What runs at each boot: BootDocuments.
  std::vector<std::pair<std::string, std::string>> boot;
};

// user-data, meta-data and network-config as an ISO 9660 image labelled
// cidata, made in memory by libisofs. Its size is a multiple of kSeedUnit, so
// that nearly all have one size: a guest that goes on from a memory template
// knows its disks by the size that they had there. Throws Error(EIO).
inline constexpr size_t kSeedUnit = 1 << 20;
[[nodiscard]] std::string MakeSeed(const SeedInput& input);
// The documents alone, for tests: {file name, text}.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> SeedDocuments(
    const SeedInput& input);
// The host key in the bytes of such an image, if it has one.
[[nodiscard]] std::optional<KeyPair> HostKeyOf(std::string_view seed);
// Any files as such an image. Throws Error(EIO).
[[nodiscard]] std::string MakeIso(
    const std::string& label,
    const std::vector<std::pair<std::string, std::string>>& files);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_GUEST_SEED_H_
