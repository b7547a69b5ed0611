#ifndef SBXFS_FS_TREE_TEMPLATES_DIR_H_
#define SBXFS_FS_TREE_TEMPLATES_DIR_H_

#include <memory>
#include <string>
#include <vector>

#include "fs/tree/furnished_dir.h"

namespace sbxfs {

// .host/templates, or a folder in it: texts for `base`, which come by being
// written, go by unlink, and are edited as any document.
class TemplatesDir : public FurnishedDir {
 public:
  // `path`: below .host/templates, "" or "a/b/".
  TemplatesDir(TreePtr tree, const std::string& path)
      : FurnishedDir(std::move(tree), DirKind::kHost, ".host/templates/" + path,
                     ""),
        path_(path) {}

  [[nodiscard]] struct stat Stat(const Caller& reader) override;
  [[nodiscard]] NodePtr Lookup(const Caller& caller,
                               const std::string& name) override;
  [[nodiscard]] std::vector<Entry> List(const Caller& reader) override;
  void MakeDir(const Caller& caller, const std::string& name, mode_t mode,
               Reply<NodePtr> reply) override;
  void RemoveDir(const Caller& caller, const std::string& name,
                 Reply<Done> reply) override;
  void Unlink(const Caller& caller, const std::string& name,
              Reply<Done> reply) override;
  void Create(const Caller& caller, const std::string& name, int flags,
              Reply<Made> reply) override;
  void Rename(const Caller& caller, const std::string& name, Dir& to,
              const std::string& new_name, Reply<Done> reply) override;
  void Receive(const Caller& caller, const std::string& name,
               const std::shared_ptr<File>& scratch,
               Reply<Done> reply) override;

 protected:
  std::shared_ptr<File> Built(const Caller& caller,
                              const std::string& name) override;
  bool IsDocument(const std::string& name) const override;
  bool IsScratch(const std::string& name, int flags) const override;
  [[noreturn]] void RefuseNew(const std::string& name) const override;

 private:
  [[nodiscard]] bool HasFolder(const std::string& name) const;
  [[nodiscard]] std::shared_ptr<File> Template(const std::string& name) const;

  const std::string path_;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_TREE_TEMPLATES_DIR_H_
