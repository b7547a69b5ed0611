#include "fs/name.h"

#include <fmt/format.h>

#include <cerrno>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

bool IsAlnum(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c >= '0' && c <= '9');
}

bool EndsInYaml(std::string_view text) {
  return text.size() >= kYaml.size() &&
         text.substr(text.size() - kYaml.size()) == kYaml;
}

// What is wrong with `text` but for its length; empty when nothing is.
std::string_view Flaw(std::string_view text) {
  if (text.empty()) return "a name cannot be empty";
  if (!IsAlnum(text.front())) {
    return "a name begins with a letter or a digit";
  }
  for (const char c : text) {
    if (!IsAlnum(c) && c != '.' && c != '_' && c != '-') {
      return "a name is made of letters, digits, '.', '_' and '-'";
    }
  }
  if (EndsInYaml(text)) {
    return "a name cannot end in .yaml, which stands for its config.yaml";
  }
  return {};
}

}  // namespace

Name Name::Parse(std::string_view verb, std::string_view text) {
  if (text.size() > kLongest) {
    throw Error(ENAMETOOLONG,
                fmt::format("Cannot {} '{}': a name has {} bytes at most, this "
                            "one {}; choose a shorter one",
                            verb, text, kLongest, text.size()));
  }
  if (const auto flaw = Flaw(text); !flaw.empty()) {
    throw Error(EINVAL, fmt::format("Cannot {} '{}': {}; choose another one",
                                    verb, text, flaw));
  }
  return Name(std::string(text));
}

bool Name::Valid(std::string_view text) {
  return text.size() <= kLongest && Flaw(text).empty();
}

bool LooksScratch(std::string_view text) {
  if (text.starts_with('.') || text.starts_with('#')) return true;
  if (text.find(".tmp") != std::string_view::npos) return true;
  for (const std::string_view end : {"~", ".bak", ".new", ".orig", ".swp"}) {
    if (text.ends_with(end)) return true;
  }
  return false;
}

bool IsEntryName(std::string_view text) {
  return text.find('/') == text.npos && text != "." && text != "..";
}

std::string StripYaml(std::string_view text) {
  if (!EndsInYaml(text)) return {};
  text.remove_suffix(kYaml.size());
  return Name::Valid(text) ? std::string(text) : std::string();
}

}  // namespace sbxfs
