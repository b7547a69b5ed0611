#include "backend/spec/keys.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <span>

#include "backend/util/text.h"
#include "backend/util/utf8.h"

namespace sbxfs {
namespace {

constexpr uint64_t kMaxCpus = 255;  // of a q35 without an IOMMU
constexpr uint64_t kMinMemory = 16ULL << 20;
constexpr uint64_t kMaxMemory = 16ULL << 40;
constexpr uint64_t kMinDisk = 1ULL << 20;
constexpr uint64_t kMaxDisk = 64ULL << 40;
constexpr std::string_view kAlnum =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
constexpr std::array<std::string_view, 4> kArchs = {"x86_64", "aarch64",
                                                    "armv7l", "riscv64"};

bool Consists(std::string_view text, std::string_view others) {
  return std::all_of(text.begin(), text.end(), [&](char c) {
    return kAlnum.find(c) != kAlnum.npos || others.find(c) != others.npos;
  });
}

bool IsArch(std::string_view text) {
  return std::find(kArchs.begin(), kArchs.end(), text) != kArchs.end();
}

bool IsPath(std::string_view text) {
  return text.starts_with('/') && Consists(text, "/._-+@");
}

// A value on its way into a Spec, and the sentences that may stop it.
class Value {
 public:
  Value(std::string_view document, std::string key, const YamlNode& node)
      : document_(document), key_(std::move(key)), node_(node) {}

  [[nodiscard]] std::string_view Document() const { return document_; }
  [[nodiscard]] const std::string& Key() const { return key_; }
  [[nodiscard]] const YamlNode& Node() const { return node_; }

  [[nodiscard]] Error Wrong(std::string_view allowed) const {
    return YamlError(
        document_, node_,
        fmt::format("{} is {}; it must be {}", key_, Found(), allowed));
  }

  // Any scalar is a text, as in YAML.
  [[nodiscard]] std::string Text(std::string_view allowed) const {
    if (node_.kind != YamlNode::Kind::kScalar) throw Wrong(allowed);
    return node_.value;
  }

  [[nodiscard]] uint64_t Number(uint64_t least, uint64_t most,
                                std::string_view allowed) const {
    // 010 is eight to some readers and ten to others.
    const bool octal = node_.value.size() > 1 && node_.value[0] == '0';
    const auto number =
        Plain() && !octal ? ParseNumber(node_.value) : std::nullopt;
    if (!number || *number < least || *number > most) throw Wrong(allowed);
    return *number;
  }

  [[nodiscard]] uint64_t Size(uint64_t least, uint64_t most) const {
    const auto size = node_.kind == YamlNode::Kind::kScalar
                          ? ParseSize(node_.value)
                          : std::nullopt;
    if (!size || *size < least || *size > most) {
      throw Wrong(fmt::format("a size from {} to {}, as in '4GiB'",
                              FormatSize(least), FormatSize(most)));
    }
    return *size;
  }

  [[nodiscard]] bool Bool() const {
    for (const char* word : {"true", "True", "TRUE"}) {
      if (Plain() && node_.value == word) return true;
    }
    for (const char* word : {"false", "False", "FALSE"}) {
      if (Plain() && node_.value == word) return false;
    }
    throw Wrong("true or false");
  }

 private:
  [[nodiscard]] bool Plain() const {
    return node_.kind == YamlNode::Kind::kScalar && !node_.quoted;
  }

  [[nodiscard]] std::string Found() const {
    switch (node_.kind) {
      case YamlNode::Kind::kNull:
        return "empty";
      case YamlNode::Kind::kList:
        return "a list";
      case YamlNode::Kind::kMap:
        return "a map";
      case YamlNode::Kind::kScalar:
        break;
    }
    const std::string shown = ForSentence(node_.value);
    return node_.quoted ? fmt::format("the text \"{}\"", shown)
                        : fmt::format("'{}'", shown);
  }

  const std::string_view document_;
  const std::string key_;
  const YamlNode& node_;
};

// One key of a map.
struct Key {
  std::string_view name;
  ValueType type;
  void (*read)(const Value&, Spec&);
};

using Names = std::span<const std::string_view>;

std::string Dotted(std::string_view map, std::string_view key) {
  return map.empty() ? std::string(key) : fmt::format("{}.{}", map, key);
}

// The sentence for a key of `map` (empty: the root) that is not in `known`.
Error UnknownKey(std::string_view document, std::string_view map,
                 const YamlNode& key,
                 const std::vector<std::string_view>& known, Names later) {
  if (std::find(later.begin(), later.end(), key.value) != later.end()) {
    return YamlError(document, key,
                     fmt::format("key '{}' is not supported by this version "
                                 "of sbxfs; remove it",
                                 Dotted(map, key.value)));
  }
  std::string hint = "known";
  // A slip of the pen for a later key is better not led to another one.
  std::vector<std::string_view> candidates = known;
  candidates.insert(candidates.end(), later.begin(), later.end());
  const std::string nearest = NearestName(key.value, candidates);
  if (std::find(known.begin(), known.end(), nearest) != known.end()) {
    hint = fmt::format("did you mean '{}'? Known", Dotted(map, nearest));
  }
  return YamlError(
      document, key,
      fmt::format("unknown key '{}'; {} keys{}{}: {}",
                  Dotted(map, ForSentence(key.value)), hint,
                  map.empty() ? "" : " of ", map, fmt::join(known, ", ")));
}

// Calls the readers of `keys` with what the map `value` holds.
void ReadMap(const Value& value, std::span<const Key> keys, Names later,
             Spec& spec) {
  std::vector<std::string_view> names;
  for (const Key& key : keys) names.push_back(key.name);
  if (value.Node().kind != YamlNode::Kind::kMap) {
    throw value.Wrong(
        fmt::format("a map with the keys {}", fmt::join(names, ", ")));
  }
  for (const auto& [name, node] : value.Node().entries) {
    const auto found = std::find_if(
        keys.begin(), keys.end(),
        [&, &name = name](const Key& k) { return k.name == name.value; });
    if (found == keys.end()) {
      throw UnknownKey(value.Document(), value.Key(), name, names, later);
    }
    if (node.kind == YamlNode::Kind::kNull) continue;
    found->read(Value(value.Document(), Dotted(value.Key(), name.value), node),
                spec);
  }
}

void ReadArch(const Value& value, Spec& spec) {
  const std::string allowed =
      fmt::format("one of {}, or default", fmt::join(kArchs, ", "));
  const std::string arch = value.Text(allowed);
  if (arch != "default" && !IsArch(arch)) throw value.Wrong(allowed);
  spec.arch = arch == "default" ? "" : arch;
}

void ReadCpuType(const Value& value, Spec& spec) {
  constexpr char kAllowed[] = "a map of CPU types by architecture";
  if (value.Node().kind != YamlNode::Kind::kMap) throw value.Wrong(kAllowed);
  for (const auto& [name, node] : value.Node().entries) {
    if (!IsArch(name.value)) {
      throw UnknownKey(value.Document(), value.Key(), name,
                       {kArchs.begin(), kArchs.end()}, {});
    }
    if (node.kind == YamlNode::Kind::kNull) continue;
    const Value entry(value.Document(), Dotted(value.Key(), name.value), node);
    constexpr char kType[] =
        "a CPU type as QEMU names it, as in 'max' or 'Nehalem,+aes'";
    const std::string type = entry.Text(kType);
    if (!Consists(type, "._+=,-") || type.size() > 200 ||
        (!type.empty() && !Consists(type.substr(0, 1), ""))) {
      throw entry.Wrong(kType);
    }
    spec.cpu_types[name.value] = type;
  }
}

std::string ReadLocation(const Value& value) {
  constexpr char kAllowed[] =
      "a name in .host/images, an absolute path or an https URL";
  std::string location = value.Text(kAllowed);
  bool good = !location.empty() && IsPlainLine(location);
  const auto after = [&](std::string_view scheme) {
    return location.starts_with(scheme) && location.size() > scheme.size() &&
           location.find(' ') == std::string::npos;
  };
  const bool url = after("https://") || after("http://localhost/") ||
                   after("http://localhost:") || after("http://127.0.0.1/") ||
                   after("http://127.0.0.1:");
  if (!url && !location.starts_with('/')) {
    good = good && location.find('/') == std::string::npos &&
           location[0] != '.' && location[0] != '~';
  }
  if (!good) throw value.Wrong(kAllowed);
  return location;
}

std::string ReadDigest(const Value& value) {
  constexpr char kAllowed[] =
      "'sha256:' and 64, or 'sha512:' and 128 hexadecimal digits";
  std::string digest = value.Text(kAllowed);
  const auto colon = std::min(digest.find(':'), digest.size());
  const std::string_view algorithm = std::string_view(digest).substr(0, colon);
  const std::string_view digits =
      std::string_view(digest).substr(std::min(colon + 1, digest.size()));
  const std::size_t length =
      algorithm == "sha256" ? 64 : (algorithm == "sha512" ? 128 : 0);
  const bool hex = std::all_of(digits.begin(), digits.end(), [](char c) {
    return std::isxdigit(static_cast<unsigned char>(c)) != 0;
  });
  if (length == 0 || digits.size() != length || !hex)
    throw value.Wrong(kAllowed);
  return digest;
}

// Reads into the last of spec.images.
constexpr Key kImageKeys[] = {
    {"arch", ValueType::kText,
     [](const Value& value, Spec& spec) {
       const std::string allowed =
           fmt::format("one of {}", fmt::join(kArchs, ", "));
       std::string arch = value.Text(allowed);
       if (!IsArch(arch)) throw value.Wrong(allowed);
       spec.images.back().arch = std::move(arch);
     }},
    {"digest", ValueType::kText,
     [](const Value& value, Spec& spec) {
       spec.images.back().digest = ReadDigest(value);
     }},
    {"location", ValueType::kText,
     [](const Value& value, Spec& spec) {
       spec.images.back().location = ReadLocation(value);
     }},
};
constexpr std::string_view kLaterImageKeys[] = {"initrd", "kernel"};

void ReadImages(const Value& value, Spec& spec) {
  constexpr char kAllowed[] =
      "a list of images, each with its location, as in '- location: "
      "debian-12'";
  if (value.Node().kind != YamlNode::Kind::kList ||
      value.Node().items.empty()) {
    throw value.Node().items.empty() &&
            value.Node().kind == YamlNode::Kind::kList
        ? YamlError(value.Document(), value.Node(),
                    "images is an empty list; name an image, or remove the key")
        : value.Wrong(kAllowed);
  }
  spec.images.clear();
  for (const YamlNode& item : value.Node().items) {
    const std::string key =
        fmt::format("{}[{}]", value.Key(), spec.images.size());
    const Value image(value.Document(), key, item);
    spec.images.emplace_back();
    if (item.kind == YamlNode::Kind::kScalar) {
      throw image.Wrong("a map, as in 'location: debian-12'");
    }
    ReadMap(image, kImageKeys, kLaterImageKeys, spec);
    if (spec.images.back().location.empty()) {
      throw YamlError(value.Document(), item,
                      fmt::format("{} has no location; add one, as in "
                                  "'location: debian-12'",
                                  key));
    }
  }
}

void ReadDescription(const Value& value, Spec& spec) {
  std::string text = value.Text("a text");
  if (FindNotPlain(text) != std::string::npos ||
      text.find('\r') != std::string::npos) {
    throw value.Wrong("a text without control characters");
  }
  // A block of YAML ends with a newline that is no part of what is meant.
  while (text.ends_with('\n')) text.pop_back();
  spec.description = std::move(text);
}

void ReadUserName(const Value& value, Spec& spec) {
  constexpr char kAllowed[] =
      "a login: a small letter or _, then small letters, digits, - and _, 32 "
      "at most";
  std::string user = value.Text(kAllowed);
  if (!IsLogin(user)) throw value.Wrong(kAllowed);
  spec.user = std::move(user);
}

void ReadComment(const Value& value, Spec& spec) {
  constexpr char kAllowed[] = "one line without ':'";
  std::string comment = value.Text(kAllowed);
  // A field of /etc/passwd.
  if (!IsPlainLine(comment) || comment.find(':') != std::string::npos) {
    throw value.Wrong(kAllowed);
  }
  spec.comment = std::move(comment);
}

template <std::string Spec::*member>
void ReadPath(const Value& value, Spec& spec) {
  constexpr char kAllowed[] =
      "an absolute path in the guest, of letters, digits and ._-+@/";
  std::string path = value.Text(kAllowed);
  if (!IsPath(path)) throw value.Wrong(kAllowed);
  spec.*member = std::move(path);
}

constexpr Key kFirmwareKeys[] = {
    {"legacyBIOS", ValueType::kPlain,
     [](const Value& value, Spec& spec) { spec.legacy_bios = value.Bool(); }},
};
constexpr std::string_view kLaterFirmwareKeys[] = {"images"};

constexpr Key kSshKeys[] = {
    {"loadDotSSHPubKeys", ValueType::kPlain,
     [](const Value& value, Spec& spec) {
       spec.load_dot_ssh_pub_keys = value.Bool();
     }},
    {"localPort", ValueType::kPlain,
     [](const Value& value, Spec& spec) {
       spec.ssh_port = static_cast<int>(value.Number(
           0, 65535, "a port from 1 to 65535, or 0 for one that is free"));
     }},
};
constexpr std::string_view kLaterSshKeys[] = {
    "address", "forwardAgent", "forwardX11", "forwardX11Trusted", "overVsock"};

constexpr Key kUserKeys[] = {
    {"comment", ValueType::kText, ReadComment},
    {"home", ValueType::kText, ReadPath<&Spec::home>},
    {"name", ValueType::kText, ReadUserName},
    {"shell", ValueType::kText, ReadPath<&Spec::shell>},
    {"uid", ValueType::kPlain,
     [](const Value& value, Spec& spec) {
       spec.uid = static_cast<unsigned>(
           value.Number(1, 2147483647, "a whole number from 1 to 2147483647"));
     }},
};

constexpr Key kRootKeys[] = {
    {"arch", ValueType::kText, ReadArch},
    {"autostart", ValueType::kPlain,
     [](const Value& value, Spec& spec) { spec.autostart = value.Bool(); }},
    {"cpuType", ValueType::kText, ReadCpuType},
    {"cpus", ValueType::kPlain,
     [](const Value& value, Spec& spec) {
       spec.cpus = static_cast<unsigned>(
           value.Number(1, kMaxCpus, "a whole number from 1 to 255"));
     }},
    {"description", ValueType::kText, ReadDescription},
    {"disk", ValueType::kSize,
     [](const Value& value, Spec& spec) {
       spec.disk = value.Size(kMinDisk, kMaxDisk);
     }},
    {"firmware", ValueType::kText,
     [](const Value& value, Spec& spec) {
       ReadMap(value, kFirmwareKeys, kLaterFirmwareKeys, spec);
     }},
    {"images", ValueType::kText, ReadImages},
    {"memory", ValueType::kSize,
     [](const Value& value, Spec& spec) {
       spec.memory = value.Size(kMinMemory, kMaxMemory);
     }},
    {"ssh", ValueType::kText,
     [](const Value& value, Spec& spec) {
       ReadMap(value, kSshKeys, kLaterSshKeys, spec);
     }},
    {"user", ValueType::kText,
     [](const Value& value, Spec& spec) {
       ReadMap(value, kUserKeys, {}, spec);
     }},
};
// Lima's, for later versions: not misspelt, so not called unknown.
constexpr std::string_view kLaterRootKeys[] = {"additionalDisks",
                                               "audio",
                                               "base",
                                               "caCerts",
                                               "containerd",
                                               "copyToHost",
                                               "dns",
                                               "env",
                                               "guestInstallPrefix",
                                               "hostResolver",
                                               "message",
                                               "minimumLimaVersion",
                                               "mountInotify",
                                               "mountType",
                                               "mountTypesUnsupported",
                                               "mounts",
                                               "nestedVirtualization",
                                               "networks",
                                               "os",
                                               "param",
                                               "plain",
                                               "portForwards",
                                               "probes",
                                               "propagateProxyEnv",
                                               "provision",
                                               "rosetta",
                                               "saveOnStop",
                                               "timezone",
                                               "tpm",
                                               "upgradePackages",
                                               "useHostResolver",
                                               "video",
                                               "vmOpts",
                                               "vmType",
                                               "vz"};

}  // namespace

bool IsLogin(std::string_view text) {
  return !text.empty() && text.size() <= 32 && Consists(text, "_-") &&
         std::none_of(text.begin(), text.end(),
                      [](unsigned char c) { return std::isupper(c) != 0; }) &&
         std::string_view("-0123456789").find(text[0]) == text.npos;
}

ValueType TypeOfKey(std::string_view key) {
  const auto dot = key.find('.');
  const std::string_view map = dot == key.npos ? "" : key.substr(0, dot);
  const std::string_view name = map.empty() ? key : key.substr(dot + 1);
  std::span<const Key> keys = kRootKeys;
  if (map == "ssh") keys = kSshKeys;
  if (map == "user") keys = kUserKeys;
  if (map == "firmware") keys = kFirmwareKeys;
  if (map == "cpuType") keys = {};
  for (const Key& known : keys) {
    if (known.name == name) return known.type;
  }
  return ValueType::kText;
}

void ApplyLayer(std::string_view name, const YamlNode& root, Spec& spec) {
  if (root.kind == YamlNode::Kind::kNull) return;
  const Value value(name, "", root);
  if (root.kind != YamlNode::Kind::kMap) {
    throw Value(name, "the text", root)
        .Wrong("keys with their values, as in 'cpus: 2'");
  }
  ReadMap(value, kRootKeys, kLaterRootKeys, spec);
}

}  // namespace sbxfs
