#include "backend/spec/editor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "backend/util/text.h"

namespace sbxfs {
namespace {

// Drops what says nothing, so that `ssh:` and no `ssh` compare equal.
YamlNode WithoutNothing(YamlNode node) {
  for (YamlEntry& entry : node.entries) {
    entry.value = WithoutNothing(std::move(entry.value));
  }
  std::erase_if(node.entries, [](const YamlEntry& entry) {
    const YamlNode& value = entry.value;
    return SameContent(value, YamlNode()) ||
           (value.kind == YamlNode::Kind::kList && value.items.empty());
  });
  return node;
}

}  // namespace

void Editor::ProposeLines(std::size_t at, std::string_view lines) {
  const bool open = at > 0 && text_[at - 1] != '\n';
  Propose(at, at, fmt::format("{}{}", open ? layout_.EndOfLine() : "", lines));
}

// Its comma goes too: the one behind, or of the last the one before.
void Editor::ProposeFlowRemoval(std::size_t begin, std::size_t end) {
  const auto behind = text_.find_first_not_of(kBlanks, end);
  const auto before =
      begin == 0 ? text_.npos : text_.find_last_not_of(kBlanks, begin - 1);
  if (behind != text_.npos && text_[behind] == ',') {
    const auto next = text_.find_first_not_of(" \t", behind + 1);
    Propose(begin, std::min(next, text_.size()), "");
  } else if (before != text_.npos && text_[before] == ',') {
    Propose(before, end, "");
  }
  Propose(begin, end, "");
}

bool Editor::Says(const YamlNode& wanted) const {
  return SameContent(WithoutNothing(root_), WithoutNothing(wanted));
}

std::string Editor::Best(const YamlNode& wanted, std::string_view verb) const {
  const YamlNode content = WithoutNothing(wanted);
  for (const Edit& edit : edits_) {
    std::string result = fmt::format("{}{}{}", text_.substr(0, edit.begin),
                                     edit.text, text_.substr(edit.end));
    try {
      if (SameContent(WithoutNothing(ReadYaml(kEdited, result)), content)) {
        return result;
      }
    } catch (const Error&) {
      continue;  // no YAML any more
    }
  }
  throw Error(EINVAL,
              fmt::format("Cannot {}: the text is laid out in a way that "
                          "cannot be edited in place; change it in {} by "
                          "hand",
                          verb, kEdited));
}

}  // namespace sbxfs
