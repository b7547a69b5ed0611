#include "fs/tree/networks_dir.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "fs/attributes.h"
#include "fs/document.h"
#include "fs/name.h"
#include "fs/text_file.h"

namespace sbxfs {
namespace {

std::string KeyOf(const Tree& tree, const std::string& name) {
  return tree.options.at + "networks/" + name + '/';
}

const Network* FindNetwork(const Host& host, const std::string& name) {
  const auto found = std::find_if(
      host.networks.begin(), host.networks.end(),
      [&](const Network& network) { return network.name == name; });
  return found == host.networks.end() ? nullptr : &*found;
}

// The view with the network in it. Throws Error(ENOENT) when it is gone.
View NetworkView(View view, const std::string& name) {
  view.network = FindNetwork(*view.host, name);
  if (view.network == nullptr) {
    throw Error(ENOENT,
                fmt::format("Cannot go on: the network '{}' is gone", name));
  }
  return view;
}

// A file of the table, of a network.
template <typename RowFile>
class NetworkFile : public RowFile {
 public:
  NetworkFile(const TreePtr& tree, const Row& row, std::string network)
      : RowFile(tree, row, KeyOf(*tree, network) + std::string(row.name), ""),
        network_(std::move(network)) {}

  [[nodiscard]] View ViewFor(const Caller& reader) override {
    return NetworkView(RowFile::ViewFor(reader), network_);
  }

 private:
  const std::string network_;
};

}  // namespace

struct stat NetworksDir::Stat(const Caller&) {
  const auto host = tree_->backend.GetHost();
  struct stat stat = OwnStat(*tree_, S_IFDIR | 0755, host->since);
  stat.st_nlink += host->networks.size();
  return stat;
}

NodePtr NetworksDir::Lookup(const Caller&, const std::string& name) {
  if (FindNetwork(*tree_->backend.GetHost(), name) == nullptr) return nullptr;
  return std::make_shared<NetworkDir>(tree_, name);
}

std::vector<Dir::Entry> NetworksDir::List(const Caller&) {
  std::vector<Entry> entries;
  for (const auto& network : tree_->backend.GetHost()->networks) {
    if (!IsEntryName(network.name)) continue;
    entries.push_back(
        {network.name, std::make_shared<NetworkDir>(tree_, network.name)});
  }
  return entries;
}

void NetworksDir::MakeDir(const Caller& caller, const std::string& name, mode_t,
                          Reply<NodePtr> reply) {
  const Name valid = Name::Parse("make network", name);
  tree_->backend.MakeNetwork(
      caller, valid.Text(),
      reply.Then<Done>([tree = tree_, name](Done) -> NodePtr {
        return std::make_shared<NetworkDir>(tree, name);
      }));
}

void NetworksDir::RemoveDir(const Caller& caller, const std::string& name,
                            Reply<Done> reply) {
  if (!Lookup(caller, name)) {
    throw Error(ENOENT,
                fmt::format("Cannot remove network '{}': there is none", name));
  }
  // `rm -r` was refused a file of it just before.
  CheckRefused(*tree_, caller, tree_->options.at, name);
  CheckRefused(*tree_, caller, KeyOf(*tree_, name), name);
  tree_->backend.RemoveNetwork(
      caller, name, reply.Then<Done>([tree = tree_, name](Done done) {
        tree->Retire(KeyOf(*tree, name));
        return done;
      }));
}

NetworkDir::NetworkDir(const TreePtr& tree, const std::string& name)
    : FurnishedDir(tree, DirKind::kNetwork, KeyOf(*tree, name), ""),
      name_(name) {}

struct stat NetworkDir::Stat(const Caller& reader) {
  const View view = NetworkView(tree_->ViewFor(reader, ""), name_);
  return OwnStat(*tree_, S_IFDIR | 0755, view.host->since);
}

std::shared_ptr<File> NetworkDir::Built(const Caller&,
                                        const std::string& name) {
  const Row* row = FindRow(DirKind::kNetwork, name);
  if (row == nullptr) return nullptr;
  if (row->form == Form::kDocument) {
    return std::make_shared<NetworkFile<RowDocument>>(tree_, *row, name_);
  }
  return std::make_shared<NetworkFile<TextFile>>(tree_, *row, name_);
}

}  // namespace sbxfs
