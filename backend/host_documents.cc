#include "backend/host_documents.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cerrno>

#include "backend/guest/keys.h"
#include "backend/spec/layers.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

constexpr char kDefaults[] = "defaults.yaml";
constexpr char kOverrides[] = "override.yaml";
constexpr char kKeys[] = "authorized_keys";
constexpr std::string_view kTemplates = "templates/";
constexpr std::size_t kMostParts = 5;

// A volume's name has no '/', and a document's no '+'.
std::string Stored(std::string name) {
  std::replace(name.begin(), name.end(), '/', '+');
  return name;
}

std::string Named(std::string stored) {
  std::replace(stored.begin(), stored.end(), '+', '/');
  return stored;
}

bool IsPart(std::string_view part) {
  return !part.empty() && part.size() <= 58 && part[0] != '.' &&
         part[0] != '-' &&
         std::all_of(part.begin(), part.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
         });
}

// A template's or a folder's path below templates/.
bool IsTemplatePath(std::string_view path) {
  const bool folder = path.ends_with('/');
  if (folder) path.remove_suffix(1);
  const auto parts = Split(path, '/');
  return parts.size() <= kMostParts &&
         std::all_of(parts.begin(), parts.end(), IsPart) &&
         (folder || path.ends_with(".yaml"));
}

void Check(const std::string& name, const std::string& text) {
  if (name == kKeys) {
    CheckAuthorizedKeys(text);
  } else if (!name.starts_with(kTemplates)) {
    CheckLayer(name, text, /*is_template=*/false);
  } else if (!name.ends_with('/')) {
    CheckLayer(name, text, /*is_template=*/true);
  }
}

}  // namespace

bool HostDocuments::Read() {
  const uint64_t number = looks_.Begin();
  const auto defaults = documents_.Read(kDefaults);
  const auto overrides = documents_.Read(kOverrides);
  const auto keys = documents_.Read(kKeys);
  std::map<std::string, HostText> templates;
  for (auto& [name, text] :
       documents_.ReadAll(Stored(std::string(kTemplates)))) {
    templates[Named(name).substr(kTemplates.size())] = {std::move(text.text),
                                                        text.modified};
  }
  return core_.catalog.ChangeHostIf([&](Host& host) {
    if (!looks_.Keeps(number) ||
        (host.defaults == defaults.text && host.overrides == overrides.text &&
         host.authorized_keys == keys.text && host.templates == templates)) {
      return false;
    }
    host.defaults = defaults.text;
    host.defaults_time = defaults.modified;
    host.overrides = overrides.text;
    host.overrides_time = overrides.modified;
    host.authorized_keys = keys.text;
    host.templates = std::move(templates);
    return true;
  });
}

void HostDocuments::Set(const std::string& name,
                        const std::optional<std::string>& text) {
  const std::string what =
      fmt::format("Cannot {} '.host/{}'", text ? "store" : "remove", name);
  if (name.starts_with(kTemplates) &&
      !IsTemplatePath(std::string_view(name).substr(kTemplates.size()))) {
    throw Error(EINVAL,
                what +
                    ": a template's name has letters, digits and ._-, and "
                    "ends in .yaml; choose such a name");
  }
  if (text) Check(name, *text);
  if (core_.test_driver) {
    throw Error(EOPNOTSUPP, what + ": the test driver keeps no documents");
  }
  const Turns::Turn turn = core_.Turn("doc " + name, what);
  if (text) {
    documents_.Write(Stored(name), *text);
  } else {
    documents_.Remove(Stored(name));
  }
  Read();
  core_.storage.Announce();
  // Settings and keys may follow from it.
  if (!name.starts_with(kTemplates)) {
    core_.ReadAll();
  }
}

}  // namespace sbxfs
