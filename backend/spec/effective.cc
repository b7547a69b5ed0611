// effective.yaml: the layers merged, with their names.
#include <fmt/format.h>

#include <algorithm>

#include "backend/spec/keys.h"
#include "backend/spec/layers.h"
#include "backend/spec/merge.h"
#include "backend/spec/scalar.h"
#include "backend/spec/yaml.h"

namespace sbxfs {
namespace {

using Kind = YamlNode::Kind;

// Whether nothing below says anything.
bool IsEmpty(const YamlNode& node) {
  return node.kind == Kind::kNull ||
         (node.kind == Kind::kMap &&
          std::all_of(node.entries.begin(), node.entries.end(),
                      [](const YamlEntry& e) { return IsEmpty(e.value); }));
}

// Whether a text can stand as a block, as it is.
bool IsBlock(std::string_view text) {
  const auto newline = text.find('\n');
  return newline != text.npos && text.front() != ' ' && text.front() != '\n' &&
         text.find('\t') == text.npos && text.find("\n\n\n") == text.npos &&
         text.find(" \n") == text.npos && text.find('\r') == text.npos &&
         !text.ends_with("\n\n");
}

class YamlWriter {
 public:
  std::string Take() { return std::move(text_); }

  // The entries of a map, `first` behind what the line has already.
  void Map(const YamlNode& map, const std::string& key, std::size_t indent,
           bool first) {
    std::vector<const YamlEntry*> entries;
    for (const YamlEntry& entry : map.entries) {
      if (!IsEmpty(entry.value)) entries.push_back(&entry);
    }
    // The same text for the same settings, whatever layer came first.
    if (key.empty()) {
      std::sort(entries.begin(), entries.end(),
                [](const YamlEntry* a, const YamlEntry* b) {
                  return a->key.value < b->key.value;
                });
    }
    for (const YamlEntry* entry : entries) {
      if (!first) text_.append(indent, ' ');
      first = false;
      const std::string& name = entry->key.value;
      text_ += FormatScalar(name, ValueType::kPlain, false, '\0') + ':';
      Below(entry->value, key.empty() ? name : fmt::format("{}.{}", key, name),
            indent);
    }
  }

 private:
  // A value behind its key.
  void Below(const YamlNode& node, const std::string& key, std::size_t indent) {
    if (node.kind == Kind::kMap) {
      text_ += '\n';
      Map(node, key, indent + 2, false);
    } else if (node.kind == Kind::kList && node.items.empty()) {
      text_ += " []";
      Comment(node, key);
    } else if (node.kind == Kind::kList) {
      text_ += '\n';
      List(node, key + "[]", indent);
    } else {
      text_ += ' ';
      Scalar(node, key, indent + 2);
    }
  }

  void List(const YamlNode& list, const std::string& key, std::size_t indent) {
    for (const YamlNode& item : list.items) {
      if (IsEmpty(item)) continue;
      text_.append(indent, ' ');
      text_ += "- ";
      if (item.kind == Kind::kMap) {
        Map(item, key, indent + 2, true);
      } else {
        Scalar(item, key, indent + 2);
      }
    }
  }

  void Scalar(const YamlNode& node, const std::string& key,
              std::size_t indent) {
    if (IsBlock(node.value)) {
      const bool open = !node.value.ends_with('\n');
      text_ += open ? "|-" : "|";
      Comment(node, key);
      std::string_view rest = node.value;
      while (!rest.empty()) {
        const std::string_view line = rest.substr(0, rest.find('\n'));
        if (!line.empty()) text_.append(indent, ' ');
        text_ += line;
        text_ += '\n';
        rest.remove_prefix(std::min(line.size() + 1, rest.size()));
      }
      return;
    }
    text_ += FormatScalar(node.value,
                          node.quoted ? ValueType::kText : ValueType::kPlain,
                          false, '\0');
    Comment(node, key);
  }

  void Comment(const YamlNode& node, const std::string& key) {
    text_ += "  # " + node.document;
    if (const std::string_view why = WhyIdle(key); !why.empty()) {
      text_ += fmt::format("; no effect here: {}", why);
    }
    text_ += '\n';
  }

  std::string text_;
};

}  // namespace

std::string EffectiveText(const std::vector<Layer>& layers,
                          const std::vector<Fact>& facts) {
  YamlNode merged;
  for (const Layer& layer : layers) {
    merged = MergeLayers(std::move(merged), ReadYaml(layer.name, layer.text));
  }
  // Its text is in the layers.
  std::erase_if(merged.entries,
                [](const YamlEntry& e) { return e.key.value == "base"; });
  YamlWriter writer;
  writer.Map(merged, "", 0, false);
  std::string text = writer.Take();
  if (!facts.empty()) text += "\n# Chosen by sbxfs, or found out:\n";
  for (const Fact& fact : facts) {
    text += fmt::format("# {}: {}\n", fact.key, fact.value);
  }
  return text;
}

}  // namespace sbxfs
