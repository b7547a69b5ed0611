#include "backend/spec/merge.h"

#include <algorithm>
#include <string>
#include <string_view>

namespace sbxfs {
namespace {

using Kind = YamlNode::Kind;

// How a list of a stronger layer meets one of a weaker. Lists that are not
// named replace each other.
struct Rule {
  enum class How { kBehind, kBefore, kByKey };
  std::string_view list;  // dotted
  How how;
  std::string_view key = {};  // of an item, for kByKey
};

// As in Lima, but that the steps of weaker layers always come first.
constexpr Rule kRules[] = {
    {"additionalDisks", Rule::How::kByKey, "name"},
    {"caCerts.certs", Rule::How::kBehind},
    {"mounts", Rule::How::kByKey, "location"},
    {"mountTypesUnsupported", Rule::How::kBehind},
    {"networks", Rule::How::kByKey, "interface"},
    {"portForwards", Rule::How::kBefore},
    {"probes", Rule::How::kBehind},
    {"provision", Rule::How::kBehind},
};

const Rule* FindRule(std::string_view list) {
  for (const Rule& rule : kRules) {
    if (rule.list == list) return &rule;
  }
  return nullptr;
}

// The value of an item's key; a bare word stands for it.
std::string_view KeyOf(const YamlNode& item, std::string_view key) {
  if (item.kind == Kind::kScalar) return item.value;
  const YamlNode* node = item.Find(key);
  return node == nullptr ? std::string_view() : node->value;
}

YamlNode Merge(YamlNode weak, const YamlNode& strong, const std::string& key);

void MergeByKey(YamlNode& weak, const YamlNode& strong, std::string_view key) {
  for (const YamlNode& item : strong.items) {
    const std::string_view name = KeyOf(item, key);
    const auto same = std::find_if(
        weak.items.begin(), weak.items.end(), [&](const YamlNode& other) {
          return !name.empty() && KeyOf(other, key) == name;
        });
    if (same == weak.items.end()) {
      weak.items.push_back(item);
    } else if (same->kind == Kind::kMap && item.kind == Kind::kMap) {
      *same = Merge(std::move(*same), item, "");
    } else if (item.kind == Kind::kMap) {
      *same = item;
    }
  }
}

void MergeLists(YamlNode& weak, const YamlNode& strong, const Rule& rule) {
  auto& items = weak.items;
  switch (rule.how) {
    case Rule::How::kBehind:
      items.insert(items.end(), strong.items.begin(), strong.items.end());
      return;
    case Rule::How::kBefore:
      items.insert(items.begin(), strong.items.begin(), strong.items.end());
      return;
    case Rule::How::kByKey:
      MergeByKey(weak, strong, rule.key);
  }
}

// `key`: the dotted one that both stand at.
YamlNode Merge(YamlNode weak, const YamlNode& strong, const std::string& key) {
  if (strong.kind == Kind::kNull) return weak;
  if (weak.kind == Kind::kList && strong.kind == Kind::kList) {
    const Rule* rule = FindRule(key);
    if (rule == nullptr) return strong;
    MergeLists(weak, strong, *rule);
    return weak;
  }
  if (weak.kind != Kind::kMap || strong.kind != Kind::kMap) return strong;
  for (const YamlEntry& entry : strong.entries) {
    const auto same = std::find_if(weak.entries.begin(), weak.entries.end(),
                                   [&](const YamlEntry& other) {
                                     return other.key.value == entry.key.value;
                                   });
    if (same == weak.entries.end()) {
      weak.entries.push_back(entry);
      continue;
    }
    same->value =
        Merge(std::move(same->value), entry.value,
              key.empty() ? entry.key.value : key + '.' + entry.key.value);
  }
  return weak;
}

}  // namespace

YamlNode MergeLayers(YamlNode weak, const YamlNode& strong) {
  return Merge(std::move(weak), strong, "");
}

}  // namespace sbxfs
