#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/guest/keys.h"
#include "backend/guest/ssh_handle.h"
#include "backend/util/error.h"
#include "backend/util/text.h"

// CheckAuthorizedKeys: the syntax of sshd(8)'s AUTHORIZED_KEYS FILE FORMAT.
// sshd skips a line it does not understand without a word to the one who
// cannot log in; hence the strictness.

namespace sbxfs {
namespace {

constexpr std::array<std::string_view, 8> kTypes = {
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-dss"};

struct Option {
  std::string_view name;
  bool value;
};
constexpr std::array<Option, 22> kOptions = {Option{"agent-forwarding", false},
                                             {"cert-authority", false},
                                             {"command", true},
                                             {"environment", true},
                                             {"expiry-time", true},
                                             {"from", true},
                                             {"no-agent-forwarding", false},
                                             {"no-port-forwarding", false},
                                             {"no-pty", false},
                                             {"no-touch-required", false},
                                             {"no-user-rc", false},
                                             {"no-x11-forwarding", false},
                                             {"permitlisten", true},
                                             {"permitopen", true},
                                             {"port-forwarding", false},
                                             {"principals", true},
                                             {"pty", false},
                                             {"restrict", false},
                                             {"tunnel", true},
                                             {"user-rc", false},
                                             {"verify-required", false},
                                             {"x11-forwarding", false}};

bool IsType(std::string_view word) {
  return std::find(kTypes.begin(), kTypes.end(), word) != kTypes.end();
}

// The first word of `text`, which loses it and the blanks behind it.
std::string_view TakeWord(std::string_view& text) {
  const size_t end = std::min(text.find_first_of(" \t"), text.size());
  const std::string_view word = text.substr(0, end);
  text = Trim(text.substr(end));
  return word;
}

// What is wrong with one option, or nothing.
std::string OptionFault(std::string_view option) {
  const size_t equals = std::min(option.find('='), option.size());
  std::string name(option.substr(0, equals));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  const auto known =
      std::find_if(kOptions.begin(), kOptions.end(),
                   [&](const Option& have) { return have.name == name; });
  if (known == kOptions.end()) {
    std::vector<std::string_view> names(kTypes.begin(), kTypes.end());
    for (const Option& have : kOptions) names.push_back(have.name);
    const std::string nearest = NearestName(name, names);
    return fmt::format("'{}' is neither a key type nor an option{}", name,
                       nearest.empty() ? "" : "; did you mean " + nearest);
  }
  const std::string_view value =
      option.substr(std::min(equals + 1, option.size()));
  if (!known->value && equals < option.size()) {
    return fmt::format("option '{}' takes no value", name);
  }
  if (known->value &&
      (value.size() < 2 || value.front() != '"' || value.back() != '"')) {
    return fmt::format("option '{0}' needs a value in double quotes, {0}=\"…\"",
                       name);
  }
  return "";
}

// Takes the options off the front of `line`. What is wrong with them, or
// nothing. A quote in a value is written \".
std::string OptionsFault(std::string_view& line) {
  bool quoted = false;
  size_t begin = 0;
  size_t i = 0;
  for (; i < line.size() && (quoted || (line[i] != ' ' && line[i] != '\t'));
       ++i) {
    if (quoted && line[i] == '\\' && i + 1 < line.size() &&
        line[i + 1] == '"') {
      ++i;
    } else if (line[i] == '"') {
      quoted = !quoted;
    } else if (line[i] == ',' && !quoted) {
      if (auto fault = OptionFault(line.substr(begin, i - begin));
          !fault.empty()) {
        return fault;
      }
      begin = i + 1;
    }
  }
  if (quoted) return "a double quote in its options is not closed";
  std::string fault = OptionFault(line.substr(begin, i - begin));
  line = Trim(line.substr(i));
  return fault;
}

// What is wrong with "TYPE BASE64 comment", or nothing.
std::string KeyFault(std::string_view line) {
  const std::string type(TakeWord(line));
  if (!IsType(type)) {
    if (type.find("-cert-v01@") != std::string::npos) {
      return "a certificate is no authorized key; give the key, or the CA's "
             "key with the option cert-authority";
    }
    return fmt::format("'{}' is no key type; known are {}", type,
                       fmt::join(kTypes, ", "));
  }
  const std::string base64(TakeWord(line));
  if (base64.empty()) return "the key is missing behind its type";
  const std::optional<std::string> blob = Base64Decode(base64);
  if (!blob) return "the key is no base64; was it copied whole";
  // The blob begins with its type once more, behind a length of four bytes.
  std::string head(4, '\0');
  head[3] = static_cast<char>(type.size());
  if (!blob->starts_with(head + type)) {
    return fmt::format("the key is not of the type '{}' it says", type);
  }
  // libssh may be built without DSA.
  if (type != "ssh-dss" && !ImportPublicKey(type + " " + base64)) {
    return "the key is cut short or damaged; copy it again";
  }
  return "";
}

std::string LineFault(std::string_view line) {
  const bool control = std::any_of(line.begin(), line.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < ' ' && byte != '\t') || byte == 0x7f;
  });
  if (control) return "it holds a control character";
  std::string_view rest = line;
  if (IsType(TakeWord(rest))) return KeyFault(line);
  // A word and base64 behind it is meant as a key, of a type we do not know.
  if (rest.starts_with("AAAA")) return KeyFault(line);
  if (std::string fault = OptionsFault(line); !fault.empty()) return fault;
  if (line.empty()) return "there is no key behind the options";
  return KeyFault(line);
}

}  // namespace

void CheckPublicKey(std::string_view line) {
  const std::string fault =
      line.find("PRIVATE KEY") == std::string_view::npos
          ? KeyFault(line)
          : "it is a private key, which must not leave its owner";
  if (!fault.empty()) {
    throw Error(EINVAL, fmt::format("Cannot certify the key: {}; write the "
                                    "line of a file that ends in .pub",
                                    fault));
  }
}

void CheckAuthorizedKeys(std::string_view text) {
  size_t number = 0;
  for (const std::string_view whole : Split(text, '\n')) {
    ++number;
    const std::string_view line = Trim(whole);
    std::string fault;
    if (line.find('\0') != std::string_view::npos) {
      // Whoever reads lines as C does would see half of it.
      fault = "it has a null byte; write the whole text anew";
    } else if (line.empty() || line.front() == '#') {
      continue;
    } else if (line.find("PRIVATE KEY-----") != std::string_view::npos ||
               line.starts_with("PuTTY-User-Key-File")) {
      fault =
          "this is a private key, which must not leave its owner; give the "
          "file that ends in .pub";
    } else if (line.starts_with("---- BEGIN SSH2")) {
      fault = "this is the RFC 4716 form; convert it by ssh-keygen -i -f FILE";
    } else {
      fault = LineFault(line);
    }
    if (!fault.empty()) {
      throw Error(EINVAL, fmt::format("Cannot accept 'authorized_keys': line "
                                      "{}: {}",
                                      number, fault));
    }
  }
}

}  // namespace sbxfs
