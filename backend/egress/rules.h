#ifndef SBXFS_BACKEND_EGRESS_RULES_H_
#define SBXFS_BACKEND_EGRESS_RULES_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

// Whom a guest without a network of its own may reach, as `egress` of
// config.yaml has it. Pure.

namespace sbxfs {

struct EgressRule {
  static constexpr int kWeb = 0;   // 80 and 443
  static constexpr int kAny = -1;  // every port

  // In lower case: a host's name, an address without brackets, or a domain with
  // "*." before it, which stands for every name below it.
  std::string host;
  int port = kWeb;
  bool operator==(const EgressRule&) const = default;
};

// "example.com", "*.debian.org:443", "10.0.0.7:*", "[fd00::1]:22"; nothing for
// what is no such text.
[[nodiscard]] std::optional<EgressRule> ParseEgressRule(std::string_view text);

// A host and port as a request names them.
struct Destination {
  std::string host;  // in lower case, without brackets and a dot at the end
  int port = 0;
};
[[nodiscard]] std::optional<Destination> ParseDestination(
    std::string_view text, std::optional<int> port = std::nullopt);

// The first rule that allows it, or null.
[[nodiscard]] const EgressRule* Allowing(const std::vector<EgressRule>& rules,
                                         const Destination& to);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_EGRESS_RULES_H_
