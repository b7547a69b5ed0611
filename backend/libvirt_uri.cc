#include "backend/libvirt_uri.h"

#include <fmt/format.h>
#include <libxml/uri.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include "backend/util/error.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

struct UriFree {
  void operator()(xmlURI* uri) const { xmlFreeURI(uri); }
};
struct XmlFree {
  void operator()(void* text) const { xmlFree(text); }
};

std::string Or(const char* text) { return text == nullptr ? "" : text; }

std::string Unescaped(std::string_view text) {
  const std::unique_ptr<char, XmlFree> plain(xmlURIUnescapeString(
      std::string(text).c_str(), static_cast<int>(text.size()), nullptr));
  return text.empty() ? "" : Or(plain.get());
}

std::string Escaped(const std::string& text, const char* plain) {
  const std::unique_ptr<xmlChar, XmlFree> escaped(
      xmlURIEscapeStr(reinterpret_cast<const xmlChar*>(text.c_str()),
                      reinterpret_cast<const xmlChar*>(plain)));
  std::string out = Or(reinterpret_cast<const char*>(escaped.get()));
  // libxml2 leaves it as it is, but it ends a user.
  if (std::string_view(plain).find('@') != std::string_view::npos) return out;
  for (size_t at = 0; (at = out.find('@', at)) != std::string::npos;) {
    out.replace(at, 1, "%40");
  }
  return out;
}

// In escapes a host may be anything, which would be another place when the URI
// is put together again, or an option to ssh. A percent sign is for the zone of
// an IPv6 address.
bool IsHost(std::string_view host) {
  constexpr std::string_view kOthers = "-._~:%";
  return !host.starts_with('-') &&
         (host.find('%') == host.npos || host.find(':') != host.npos) &&
         std::all_of(host.begin(), host.end(), [&](unsigned char c) {
           return c < 0x80 &&
                  (std::isalnum(c) != 0 || kOthers.find(c) != kOthers.npos);
         });
}

constexpr std::string_view kTransports[] = {"unix", "ssh", "libssh", "libssh2",
                                            "tcp",  "tls", "ext"};

}  // namespace

LibvirtUri LibvirtUri::Parse(std::string_view text) {
  auto fail = [&](std::string_view reason) -> Error {
    return Error(EINVAL,
                 fmt::format("Cannot use '{}': {}; a libvirt URI is like "
                             "qemu:///system or qemu+ssh://user@host/system",
                             text, reason));
  };
  // libxml2 ends a text there.
  if (text.find("%00") != std::string_view::npos) {
    throw fail("there is a null byte in it");
  }
  const std::string copy(text);
  const std::unique_ptr<xmlURI, UriFree> parsed(xmlParseURI(copy.c_str()));
  if (parsed == nullptr) throw fail("it is no URI");
  LibvirtUri uri;
  const std::string scheme = Or(parsed->scheme);
  if (scheme.empty() || copy.find("://") != scheme.size()) {
    throw fail("it has no driver before '://'");
  }
  const auto plus = scheme.find('+');
  uri.driver = scheme.substr(0, plus);
  uri.host = Or(parsed->server);
  if (uri.host.starts_with('[') && uri.host.ends_with(']')) {
    uri.host = uri.host.substr(1, uri.host.size() - 2);
  }
  if (!IsHost(uri.host) || (uri.host.empty() && parsed->server != nullptr &&
                            *parsed->server != '\0')) {
    throw fail("no such host");
  }
  if (plus != std::string::npos) {
    uri.transport = scheme.substr(plus + 1);
    if (std::find(std::begin(kTransports), std::end(kTransports),
                  uri.transport) == std::end(kTransports)) {
      throw fail(fmt::format("there is no transport '{}', only {}",
                             uri.transport, fmt::join(kTransports, ", ")));
    }
  } else {
    uri.transport = uri.host.empty() ? "unix" : "tls";
  }
  uri.user = Or(parsed->user);
  if (parsed->port > 65535 || parsed->port < -1) throw fail("no such port");
  uri.port = static_cast<uint16_t>(std::max(parsed->port, 0));
  uri.path = Or(parsed->path);
  if (uri.host.empty() && uri.transport != "unix" && uri.transport != "ext") {
    throw fail(fmt::format("{} needs a host", uri.transport));
  }
  const std::string query = Or(parsed->query_raw);
  for (const std::string_view word : Split(query, '&')) {
    if (word.empty()) continue;
    const auto equals = word.find('=');
    uri.parameters.emplace_back(
        Unescaped(word.substr(0, equals)),
        equals == std::string::npos ? "" : Unescaped(word.substr(equals + 1)));
  }
  return uri;
}

std::string LibvirtUri::Text() const {
  std::string text = driver;
  if (transport != (host.empty() ? "unix" : "tls")) text += "+" + transport;
  text += "://";
  if (!user.empty()) text += Escaped(user, "") + "@";
  text += host.find(':') == std::string::npos ? host
                                              : "[" + Escaped(host, ":") + "]";
  if (port != 0) text += fmt::format(":{}", port);
  text += Escaped(path, "/@");
  char before = '?';
  for (const auto& [name, value] : parameters) {
    text += before + Escaped(name, "") + "=" + Escaped(value, "/:,@");
    before = '&';
  }
  return text;
}

std::string LibvirtUri::Parameter(std::string_view name) const {
  for (const auto& [key, value] : parameters) {
    if (key == name) return value;
  }
  return "";
}

void LibvirtUri::Drop(std::string_view name) {
  std::erase_if(parameters, [&](const auto& one) { return one.first == name; });
}

void LibvirtUri::Set(std::string_view name, std::string_view value) {
  Drop(name);
  parameters.emplace_back(name, value);
}

bool LibvirtUri::Local() const {
  if (transport == "unix" || host.empty()) return true;
  if (BySsh()) return false;  // it may be a forwarded port
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

bool LibvirtUri::BySsh() const {
  return transport == "ssh" || transport == "libssh" || transport == "libssh2";
}

}  // namespace sbxfs
