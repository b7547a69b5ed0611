#include "backend/spec/layers.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "backend/spec/keys.h"
#include "backend/spec/yaml.h"
#include "backend/util/text.h"
#include "backend/util/utf8.h"

namespace sbxfs {
namespace {

constexpr std::size_t kMostBases = 50;
constexpr std::size_t kMostText = kMaxYamlSize;
constexpr std::string_view kScheme = "template:";
constexpr std::string_view kYaml = ".yaml";

Error NoBase(const YamlNode& node, std::string_view reason) {
  return YamlError(
      node, fmt::format("base '{}': {}", ForSentence(node.value), reason));
}

// The path below .host/templates that `node` names in a file of `folder`.
std::string PathOf(const YamlNode& node, const std::string& folder) {
  std::string_view name = node.value;
  std::string base = folder;
  if (name.starts_with(kScheme)) {
    name.remove_prefix(kScheme.size());
    if (name.starts_with("//")) name.remove_prefix(2);
    base.clear();
  } else if (name.starts_with('/') || name.starts_with('~') ||
             name.starts_with("file:")) {
    throw NoBase(node,
                 "files of the host are not read; cp it to .host/templates/ "
                 "and write template:NAME");
  } else if (name.find(':') != name.npos) {
    throw NoBase(node,
                 "nothing is fetched; cp the text to .host/templates/ and "
                 "write template:NAME");
  }
  std::vector<std::string_view> parts;
  const std::string joined = base + std::string(name);
  for (const std::string_view part : Split(joined, '/')) {
    if (part.empty() || part == ".") continue;
    if (part != "..") {
      parts.push_back(part);
    } else if (parts.empty()) {
      throw NoBase(node, "it leads out of .host/templates");
    } else {
      parts.pop_back();
    }
  }
  std::string path;
  for (const std::string_view part : parts) {
    path += fmt::format("{}{}", path.empty() ? "" : "/", part);
  }
  if (!path.ends_with(kYaml)) path += kYaml;
  return path;
}

// Gathers the bases, strongest first.
class Taker {
 public:
  explicit Taker(const FindTemplate& find) : find_(find) {}

  // Those of a text in `folder` ("" or "a/b/").
  void Take(const YamlNode& root, const std::string& folder) {
    const YamlNode* base = root.Find("base");
    if (base == nullptr || base->kind == YamlNode::Kind::kNull) return;
    for (const YamlNode& node : ReadBase(*base)) {
      TakeOne(node, PathOf(node, folder));
    }
  }

  std::vector<Layer> WeakestFirst() {
    std::reverse(taken_.begin(), taken_.end());
    return std::move(taken_);
  }

 private:
  void TakeOne(const YamlNode& node, const std::string& path) {
    if (std::find(open_.begin(), open_.end(), path) != open_.end()) {
      throw NoBase(node, "it stands on itself; remove one of the bases");
    }
    // What two stand on is there once.
    if (!seen_.insert(path).second) return;
    const auto text = find_(path);
    if (!text) {
      throw NoBase(node, fmt::format("there is no .host/templates/{}; cp it "
                                     "there",
                                     ForSentence(path)));
    }
    size_ += text->size();
    if (seen_.size() > kMostBases || size_ > kMostText) {
      throw NoBase(node, fmt::format("more than {} bases, or {} bytes of "
                                     "them; take fewer",
                                     kMostBases, kMostText));
    }
    std::string name(kScheme);
    name += path.substr(0, path.size() - kYaml.size());
    const YamlNode root = ReadYaml(name, *text);
    taken_.push_back({name, *text});
    open_.push_back(path);
    Take(root, path.substr(0, path.rfind('/') + 1));
    open_.pop_back();
  }

  const FindTemplate& find_;
  std::vector<Layer> taken_;
  std::vector<std::string> open_;  // the way down to here
  std::set<std::string> seen_;
  std::size_t size_ = 0;
};

}  // namespace

std::string PackLayers(const std::vector<Layer>& layers) {
  std::string packed;
  for (const Layer& layer : layers) {
    packed +=
        fmt::format("{} {}\n{}", layer.text.size(), layer.name, layer.text);
  }
  return packed;
}

std::vector<Layer> UnpackLayers(std::string_view packed) {
  std::vector<Layer> layers;
  while (!packed.empty()) {
    const auto line = packed.find('\n');
    const auto blank = packed.find(' ');
    const auto size = ParseNumber(packed.substr(0, blank));
    if (line == packed.npos || blank > line || !size ||
        *size > packed.size() - line - 1) {
      return {};  // written behind our back
    }
    layers.push_back({std::string(packed.substr(blank + 1, line - blank - 1)),
                      std::string(packed.substr(line + 1, *size))});
    packed.remove_prefix(line + 1 + *size);
  }
  return layers;
}

std::vector<Layer> TakeBases(std::string_view text, const FindTemplate& find) {
  Taker taker(find);
  taker.Take(ReadYaml("config.yaml", text), "");
  return taker.WeakestFirst();
}

void CheckLayer(const std::string& name, const std::string& text,
                bool is_template) {
  const YamlNode root = ReadYaml(name, text);
  // A template's params may come from who uses it.
  (void)ReadKeys(root, /*whole=*/false);
  if (is_template) return;
  for (const YamlEntry& entry : root.entries) {
    if (entry.key.value != "base") continue;
    throw YamlError(entry.key,
                    fmt::format("'base' is for config.yaml and templates; "
                                "write the settings into {}",
                                name));
  }
}

bool SetsKey(std::string_view text, std::string_view key) {
  const YamlNode root = ReadYaml("override.yaml", text);
  const YamlNode* node = &root;
  for (const std::string_view name : Split(key, '.')) {
    node = node->Find(name);
    if (node == nullptr) return false;
  }
  return node->kind != YamlNode::Kind::kNull;
}

}  // namespace sbxfs
