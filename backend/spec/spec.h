#ifndef SBXFS_BACKEND_SPEC_SPEC_H_
#define SBXFS_BACKEND_SPEC_SPEC_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sbxfs {

struct ImageSource {
  std::string location;  // a name in images/, an absolute path or an https URL
  std::string arch;      // empty: any
  std::string digest;    // "sha256:…", or empty
};

// What config.yaml and its layers come to. Lima's names and meanings.
struct Spec {
  std::vector<ImageSource> images;  // in order of preference
  std::string arch;                 // empty: the hypervisor's own
  unsigned cpus = 0;
  uint64_t memory = 0;  // bytes
  uint64_t disk = 0;    // bytes
  std::string user;     // user.name
  std::optional<unsigned> uid;
  std::string home;     // user.home; empty: /home/NAME.guest is not assumed
  std::string shell;    // user.shell
  std::string comment;  // user.comment
  int ssh_port = 0;     // ssh.localPort; 0: sbxfs chooses
  bool load_dot_ssh_pub_keys = false;
  std::optional<bool> legacy_bios;  // firmware.legacyBIOS; unset: as the image
  // cpuType. `cpu_type` is the entry for `arch`; while that is empty, for the
  // architecture sbxfs itself runs on. Empty: chosen.
  std::map<std::string, std::string> cpu_types;
  std::string cpu_type;
  std::string description;
  bool autostart = false;
};

// One text of several, weakest first. `name` stands in sentences and is what
// effective.yaml calls the layer ("built-in", "defaults.yaml", "config.yaml").
struct Layer {
  std::string name;
  std::string text;
};

// The built-in layer's text. `user` is the name of the guest's login; one that
// no guest would take becomes "sandbox".
[[nodiscard]] std::string BuiltInLayer(std::string_view user);

// What the layers come to: a stronger one's maps are merged into the weaker
// ones', its lists and values replace theirs, null sets nothing. Throws
// Error(EINVAL): `Cannot accept 'config.yaml': line L, column C: …` with the
// key, the value found, what is allowed, and the nearest known key.
[[nodiscard]] Spec ParseSpec(const std::vector<Layer>& layers);

// `text` with the dotted `key` set to `value` ("ssh.localPort", "2222"; an
// empty value takes the key away), comments, order and style kept. `value` is
// plain and gets quoted where YAML needs it. Throws Error(EINVAL) when `text`
// cannot be edited.
[[nodiscard]] std::string SetKey(std::string_view text, std::string_view key,
                                 std::string_view value);

// The dotted keys in which two specs differ, sorted ("cpus", "ssh.localPort").
[[nodiscard]] std::vector<std::string> Differences(const Spec& a,
                                                   const Spec& b);

// The commented text that a new sandbox's config.yaml begins with. It sets
// nothing: every key is shown commented out, with its default from `defaults`.
[[nodiscard]] std::string Skeleton(const Spec& defaults);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SPEC_SPEC_H_
