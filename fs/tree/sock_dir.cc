#include "fs/tree/sock_dir.h"

#include <fmt/format.h>

#include <cerrno>
#include <utility>

#include "fs/attributes.h"

namespace sbxfs {
namespace {

class SockLink : public Link {
 public:
  SockLink(TreePtr tree, const Row& row, const std::string& uuid,
           const std::string& dir, std::string name)
      : Link(dir + name, uuid),
        tree_(std::move(tree)),
        row_(row),
        name_(std::move(name)) {}

  struct stat Stat(const Caller& reader) override {
    struct stat stat = RowStat(tree_->ViewFor(reader, subject), row_, 0);
    stat.st_mode = S_IFLNK | 0777;
    stat.st_nlink = 1;
    SetSize(stat, Target(reader).size());
    return stat;
  }

  void Change(const Caller&, const Changes&, Reply<Done>) override {
    throw Error(EPERM, fmt::format("Cannot change '{}': it is a link to a "
                                   "socket; change that",
                                   name_));
  }

  std::string Target(const Caller& reader) override {
    const auto view = tree_->ViewFor(reader, subject);
    const auto found = view.sandbox->sockets.find(name_);
    if (found == view.sandbox->sockets.end()) {
      throw Error(ENOENT, fmt::format("Cannot look at '{}': it is forwarded no "
                                      "more",
                                      name_));
    }
    return found->second;
  }

 private:
  const TreePtr tree_;
  const Row& row_;
  const std::string name_;
};

}  // namespace

SockDir::SockDir(TreePtr tree, const Row& row, const std::string& uuid)
    : Dir(fmt::format("{}/{}/", uuid, row.name), uuid),
      tree_(std::move(tree)),
      row_(row) {}

struct stat SockDir::Stat(const Caller& reader) {
  return RowStat(tree_->ViewFor(reader, subject), row_, 0);
}

NodePtr SockDir::Lookup(const Caller& caller, const std::string& name) {
  const auto sandbox = tree_->ViewFor(caller, subject).sandbox;
  if (!sandbox->sockets.contains(name)) return nullptr;
  return std::make_shared<SockLink>(tree_, row_, subject, key, name);
}

std::vector<Dir::Entry> SockDir::List(const Caller& reader) {
  const auto sandbox = tree_->ViewFor(reader, subject).sandbox;
  std::vector<Entry> entries;
  for (const auto& [name, path] : sandbox->sockets) {
    entries.push_back(
        {name, std::make_shared<SockLink>(tree_, row_, subject, key, name)});
  }
  return entries;
}

}  // namespace sbxfs
