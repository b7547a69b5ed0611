#ifndef SBXFS_BACKEND_SPEC_ITEM_EDITOR_H_
#define SBXFS_BACKEND_SPEC_ITEM_EDITOR_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/spec/editor.h"

namespace sbxfs {

// A key of an item and its value as YAML.
struct Field {
  std::string key;
  std::string text;
};

// Changes one list at the root of a text, an item at a time: one call, which
// throws Error(EINVAL) where the layout of the text does not allow it. The
// arguments of the constructor must outlive it.
class ItemEditor : public Editor {
 public:
  ItemEditor(std::string_view text, std::string_view list,
             std::string_view verb);

  // A new item. `first`: before all others.
  std::string Add(const std::vector<Field>& fields, bool first);
  std::string Remove(std::size_t index);
  std::string Change(std::size_t index, const Field& field);

 private:
  // Made where it is not there.
  YamlNode& ListIn(YamlNode& root) const;
  // The '-' before an item of a block list.
  [[nodiscard]] std::optional<std::size_t> DashOf(const YamlNode& item) const;
  [[nodiscard]] std::string Block(const std::vector<Field>& fields,
                                  std::size_t indent) const;
  void ProposeAdding(const std::vector<Field>& fields, bool first);
  // The list with its key, at the root.
  void ProposeList(const std::vector<Field>& fields);
  void AddToFlow(const YamlNode& list, const std::vector<Field>& fields,
                 bool first);
  void AddToBlock(const YamlNode& list, const std::vector<Field>& fields,
                  bool first);
  void ProposeChange(const YamlNode& item, const Field& field);

  const std::string_view list_;
  const std::string_view verb_;
  const YamlEntry* entry_ = nullptr;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SPEC_ITEM_EDITOR_H_
