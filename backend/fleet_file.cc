// The file that names several hypervisors.
#include <fmt/format.h>

#include <cerrno>

#include "backend/core.h"
#include "backend/fleet.h"
#include "backend/util/text.h"

namespace sbxfs {

std::vector<Hypervisor> ReadHypervisors(std::string_view path,
                                        std::string_view text) {
  std::vector<Hypervisor> hypervisors;
  std::size_t number = 0;
  for (std::string_view line : Split(text, '\n')) {
    ++number;
    line = Trim(line);
    if (line.empty() || line.front() == '#') continue;
    const auto refuse = [&](std::string_view reason) {
      return Error(EINVAL, fmt::format("Cannot use '{}': line {}: {}", path,
                                       number, reason));
    };
    const auto blank = line.find_first_of(kBlanks);
    const std::string name(line.substr(0, blank));
    if (blank == line.npos) {
      throw refuse(
          fmt::format("'{}' has no URI; write NAME URI, as in 'big "
                      "qemu+ssh://root@big/system'",
                      name));
    }
    if (GuestHostname(name).substr(5) != name) {
      throw refuse(
          fmt::format("'{}' is no name; it is made of small letters, "
                      "digits and '-', as a host name is",
                      name));
    }
    const std::string uri(Trim(line.substr(blank)));
    for (const auto& other : hypervisors) {
      if (other.name == name || other.uri == uri) {
        throw refuse(fmt::format("'{}' is there twice",
                                 other.name == name ? name : uri));
      }
    }
    hypervisors.push_back({name, uri});
  }
  if (hypervisors.empty()) {
    throw Error(EINVAL, fmt::format("Cannot use '{}': it names no hypervisor; "
                                    "write a line NAME URI for each",
                                    path));
  }
  return hypervisors;
}

}  // namespace sbxfs
