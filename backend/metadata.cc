#include "backend/metadata.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <limits>
#include <sstream>
#include <type_traits>

#include "backend/domain_node.h"
#include "backend/util/text.h"
#include "backend/util/utf8.h"
#include "backend/xml.h"

namespace sbxfs {
namespace {

constexpr char kElement[] = "sandbox";
constexpr char kBase64[] = "base64";
constexpr std::size_t kLongestName = 255;
constexpr std::size_t kMostFiles = 100;

bool IsAlnum(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0;
}

bool IsLine(std::string_view text) { return IsPlainLine(text); }

// One component of a path that shows no surprise in a listing.
bool IsFileName(std::string_view text) {
  return text.size() <= kLongestName && IsPlainLine(text) && text != "." &&
         text != ".." && text.find('/') == std::string_view::npos;
}

// A login: it becomes a word of ssh_config.
bool IsUser(std::string_view text) {
  return text.size() <= kLongestName &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return IsAlnum(c) || c == '.' || c == '_' || c == '-';
         });
}

// What mkdir takes.
bool IsSandboxName(std::string_view text) {
  return text.empty() ||
         (text.size() <= 58 && IsAlnum(text[0]) && IsUser(text));
}

// "ssh-ed25519 AAAA…": it becomes a line of known_hosts.
bool IsPublicKey(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return IsAlnum(c) ||
           std::string_view(" +/=-.@_").find(c) != std::string_view::npos;
  });
}

template <typename T>
std::optional<T> ParseInteger(std::string_view text, int base = 10) {
  T number = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return number;
}

// Walks the members in one fixed order: the one table of the format.
template <typename Visitor, typename M>
void VisitMembers(M& m, Visitor& visit) {
  visit.Id("uid", m.uid);
  visit.Id("gid", m.gid);
  visit.Mode("mode", m.mode);
  visit.Short("machine", m.machine, IsLine);
  visit.Files("files", m.files);
  visit.Moment("created", m.created);
  visit.Moment("used", m.used);
  visit.Document("config", m.config);
  visit.Moment("configTime", m.config_time);
  visit.Document("rejected", m.rejected);
  visit.Document("rejectedReason", m.rejected_reason);
  visit.Document("bases", m.bases);
  visit.Short("defined", m.defined, IsLine);
  visit.Document("applied", m.applied);
  visit.Short("user", m.user, IsUser);
  visit.Number("guestUid", m.guest_uid);
  visit.Port("sshPort", m.ssh_port);
  visit.Short("hostKey", m.host_key, IsPublicKey);
  visit.Document("authorizedKeys", m.authorized_keys);
  visit.Short("guestKeys", m.guest_keys, IsLine);
  visit.Moment("certificatesRevoked", m.certificates_revoked);
  visit.Short("pool", m.pool, IsFileName);
  visit.Short("diskVolume", m.disk_volume, IsFileName);
  visit.Short("seedVolume", m.seed_volume, IsFileName);
  visit.Short("seedDigest", m.seed_digest, IsLine);
  visit.Short("consoleVolume", m.console_volume, IsFileName);
  visit.Short("image", m.image, IsFileName);
  visit.Short("origin", m.origin, IsFileName);
  visit.Short("originLayer", m.origin_layer, IsFileName);
  visit.Short("originMemory", m.origin_memory, IsFileName);
  visit.Short("originSecrets", m.origin_secrets, IsLine);
  visit.Document("records", m.records);
  visit.Short("keeps", m.keeps, IsLine);
  visit.Flag("borrowed", m.borrowed);
  visit.Flag("booted", m.booted);
  visit.Flag("seeded", m.seeded);
  visit.Short("trashedName", m.trashed_name, IsSandboxName);
  visit.Moment("trashed", m.trashed);
}

// Leaves out what is at its default.
class Writer {
 public:
  explicit Writer(xmlNode* element) : element_(element) {}

  void Id(const char* name, uid_t value) {
    AddXml(element_, name, fmt::to_string(value));
  }
  void Mode(const char* name, mode_t value) {
    AddXml(element_, name, fmt::format("{:04o}", value));
  }
  void Short(const char* name, const std::string& value,
             bool (*good)(std::string_view)) {
    if (value.empty()) return;
    if (!good(value)) {
      throw Error(EINVAL,
                  fmt::format("Cannot store '{}' in the domain: its value has "
                              "characters that do not belong there",
                              name));
    }
    AddXml(element_, name, value);
  }
  void Moment(const char* name, Time value) {
    if (value == Time()) return;
    AddXml(element_, name,
           fmt::to_string(std::chrono::duration_cast<std::chrono::nanoseconds>(
                              value.time_since_epoch())
                              .count()));
  }
  void Document(const char* name, const std::string& value) {
    if (value.empty()) return;
    AddXml(element_, name, Base64Encode(value), {{"encoding", kBase64}});
  }
  // Lines of a name, mode, uid and gid; "-" for what follows the sandbox.
  void Files(const char* name, const std::map<std::string, FileRights>& files) {
    std::string text;
    for (const auto& [file, rights] : files) {
      text +=
          fmt::format("{} {} {} {}\n", file,
                      rights.mode ? fmt::format("{:04o}", *rights.mode) : "-",
                      rights.uid ? fmt::to_string(*rights.uid) : "-",
                      rights.gid ? fmt::to_string(*rights.gid) : "-");
    }
    if (!text.empty()) AddXml(element_, name, text);
  }
  void Port(const char* name, int value) {
    if (value != 0) AddXml(element_, name, fmt::to_string(value));
  }
  void Number(const char* name, const std::optional<unsigned>& value) {
    if (value) AddXml(element_, name, fmt::to_string(*value));
  }
  void Flag(const char* name, bool value) {
    if (value) AddXml(element_, name, "yes");
  }

 private:
  xmlNode* element_;
};

class Reader {
 public:
  explicit Reader(const xmlNode* element) : element_(element) {}

  void Id(const char* name, uid_t& value) {
    value = IdOf(Value(name)).value_or(value);
  }
  void Mode(const char* name, mode_t& value) {
    value = ModeOf(Value(name)).value_or(value);
  }
  void Files(const char* name, std::map<std::string, FileRights>& files) {
    std::istringstream lines(Value(name));
    std::string file, mode, uid, gid;
    while (files.size() < kMostFiles && lines >> file >> mode >> uid >> gid) {
      if (IsFileName(file)) files[file] = {IdOf(uid), IdOf(gid), ModeOf(mode)};
    }
  }
  void Short(const char* name, std::string& value,
             bool (*good)(std::string_view)) {
    if (std::string text = Value(name); good(text)) value = std::move(text);
  }
  void Moment(const char* name, Time& value) {
    if (const auto count = ParseInteger<std::int64_t>(Value(name))) {
      value = Time(std::chrono::duration_cast<Time::duration>(
          std::chrono::nanoseconds(*count)));
    }
  }
  void Document(const char* name, std::string& value) {
    const xmlNode* child = XmlChild(element_, name);
    std::string text = XmlContent(child);
    if (XmlAttribute(child, "encoding") == kBase64) {
      auto bytes = Base64Decode(text);
      if (!bytes) return;
      text = *std::move(bytes);
    }
    value = std::move(text);
  }
  void Port(const char* name, int& value) {
    const auto number = ParseInteger<std::uint16_t>(Value(name));
    if (number) value = *number;
  }
  void Number(const char* name, std::optional<unsigned>& value) {
    value = ParseInteger<unsigned>(Value(name));
  }
  void Flag(const char* name, bool& value) { value = Value(name) == "yes"; }

 private:
  static std::optional<uid_t> IdOf(std::string_view text) {
    const auto number = ParseInteger<uid_t>(text);
    // The greatest means "none" to chown.
    if (number == std::numeric_limits<uid_t>::max()) return std::nullopt;
    return number;
  }
  static std::optional<mode_t> ModeOf(std::string_view text) {
    const auto number = ParseInteger<mode_t>(text, 8);
    if (number && *number > 07777) return std::nullopt;
    return number;
  }
  std::string Value(const char* name) {
    return std::string(Trim(XmlContent(XmlChild(element_, name))));
  }

  const xmlNode* element_;
};

bool IsOurs(const xmlNode* node) {
  return node->ns != nullptr && node->ns->href != nullptr &&
         reinterpret_cast<const char*>(node->ns->href) ==
             std::string_view(kMetadataUri);
}

// Our element below a domain's <metadata>, or null.
const xmlNode* FindElement(const xmlNode* root) {
  if (root == nullptr) return nullptr;
  if (XmlName(root) == kElement) return root;
  if (XmlName(root) != "domain") return nullptr;
  for (const xmlNode* node : XmlChildren(XmlChild(root, "metadata"))) {
    if (XmlName(node) == kElement && IsOurs(node)) return node;
  }
  return nullptr;
}

}  // namespace

std::string FormatMetadata(const Metadata& metadata) {
  const XmlDoc doc = NewXml(kElement);
  xmlNode* root = xmlDocGetRootElement(doc.get());
  Writer writer(root);
  VisitMembers(metadata, writer);
  return FormatXml(root);
}

std::optional<Metadata> ParseMetadata(std::string_view xml) {
  const XmlDoc doc = ParseXml(xml);
  return MetadataOf(doc ? xmlDocGetRootElement(doc.get()) : nullptr);
}

std::optional<Metadata> MetadataOf(const xmlNode* root) {
  const xmlNode* element = FindElement(root);
  if (element == nullptr) return std::nullopt;
  Metadata metadata;
  Reader reader(element);
  VisitMembers(metadata, reader);
  return metadata;
}

}  // namespace sbxfs
