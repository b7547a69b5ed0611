#include "backend/egress/rules.h"

#include <algorithm>

#include "backend/util/text.h"

namespace sbxfs {
namespace {

bool IsName(std::string_view host) {
  if (host.empty() || host.size() > 253) return false;
  for (const std::string_view label : Split(host, '.')) {
    if (label.empty() || label.size() > 63 || label.starts_with('-') ||
        label.ends_with('-')) {
      return false;
    }
    for (const char c : label) {
      const bool good = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                        c == '-' || c == '_';
      if (!good) return false;
    }
  }
  return true;
}

struct Parts {
  std::string host;
  std::optional<std::string_view> port;
};

// Splits at the port's colon, and takes brackets off.
std::optional<Parts> Take(std::string_view text) {
  if (text.starts_with('[')) {
    const auto end = text.find(']');
    if (end == std::string_view::npos) return {};
    Parts parts{Lower(text.substr(1, end - 1)), {}};
    const std::string_view rest = text.substr(end + 1);
    if (!rest.empty()) {
      if (rest[0] != ':') return {};
      parts.port = rest.substr(1);
    }
    if (parts.host.find(':') == std::string::npos || !IsAddress(parts.host)) {
      return {};
    }
    return parts;
  }
  const auto colon = text.find(':');
  Parts parts{Lower(text.substr(0, colon)), {}};
  if (colon != std::string_view::npos) parts.port = text.substr(colon + 1);
  if (parts.host.ends_with('.')) parts.host.pop_back();
  return parts;
}

}  // namespace

std::optional<EgressRule> ParseEgressRule(std::string_view text) {
  const auto parts = Take(text);
  if (!parts) return {};
  EgressRule rule{parts->host, EgressRule::kWeb};
  std::string_view name = rule.host;
  if (name.starts_with("*.")) name.remove_prefix(2);
  if (!IsAddress(rule.host) && !IsName(name)) return {};
  if (!parts->port) return rule;
  if (*parts->port == "*") {
    rule.port = EgressRule::kAny;
    return rule;
  }
  const auto port = ParsePort(*parts->port);
  if (!port) return {};
  rule.port = *port;
  return rule;
}

std::optional<Destination> ParseDestination(std::string_view text,
                                            std::optional<int> port) {
  const auto parts = Take(text);
  if (!parts) return {};
  if (parts->port) port = ParsePort(*parts->port);
  if (!port || (!IsAddress(parts->host) && !IsName(parts->host))) return {};
  return Destination{parts->host, *port};
}

const EgressRule* Allowing(const std::vector<EgressRule>& rules,
                           const Destination& to) {
  const auto fits = [&to](const EgressRule& rule) {
    const bool port =
        rule.port == EgressRule::kAny || rule.port == to.port ||
        (rule.port == EgressRule::kWeb && (to.port == 80 || to.port == 443));
    if (!port) return false;
    if (!rule.host.starts_with("*.")) return rule.host == to.host;
    return to.host.size() > rule.host.size() - 1 &&
           to.host.ends_with(std::string_view(rule.host).substr(1)) &&
           !IsAddress(to.host);
  };
  const auto found = std::find_if(rules.begin(), rules.end(), fits);
  return found == rules.end() ? nullptr : &*found;
}

}  // namespace sbxfs
