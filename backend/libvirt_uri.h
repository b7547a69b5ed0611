#ifndef SBXFS_BACKEND_LIBVIRT_URI_H_
#define SBXFS_BACKEND_LIBVIRT_URI_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sbxfs {

// A libvirt URI taken apart, as https://libvirt.org/uri.html has it:
// driver[+transport]://[user@][host][:port]/[path][?name=value[&name=value]].
struct LibvirtUri {
  std::string driver;
  std::string transport;  // unix or tls where the URI names none
  std::string user;
  std::string host;   // an IPv6 address without its brackets
  uint16_t port = 0;  // 0: the transport's own
  std::string path;   // with its slash
  std::vector<std::pair<std::string, std::string>> parameters;

  // Throws Error(EINVAL).
  [[nodiscard]] static LibvirtUri Parse(std::string_view text);
  [[nodiscard]] std::string Text() const;

  // Empty when it is not there.
  [[nodiscard]] std::string Parameter(std::string_view name) const;
  // Adds it, in place of one of that name.
  void Set(std::string_view name, std::string_view value);
  void Drop(std::string_view name);

  // The other end is this machine's, and so are its ports.
  [[nodiscard]] bool Local() const;
  // ssh, libssh or libssh2.
  [[nodiscard]] bool BySsh() const;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_LIBVIRT_URI_H_
