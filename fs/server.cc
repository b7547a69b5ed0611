#include "fs/server.h"

#include <fmt/format.h>

#include <utility>

#include "fs/tree/guest_files.h"
#include "fs/tree/root_dir.h"

namespace sbxfs {

namespace {

// Looks at the nodes of a directory first, and then below.
NodePtr Search(Dir& dir, uint64_t number, InodeTable& inodes) {
  const Caller all{0, 0, 0};
  auto entries = dir.List(all);
  for (auto& entry : dir.Unlisted(all)) entries.push_back(std::move(entry));
  for (const auto& entry : entries) {
    if (inodes.Fits(number, *entry.node)) return entry.node;
  }
  for (const auto& entry : entries) {
    auto* const below = dynamic_cast<Dir*>(entry.node.get());
    if (below == nullptr || !(entry.node->subject.empty() ||
                              inodes.FitsSubject(number, entry.node->subject)))
      continue;
    if (auto found = Search(*below, number, inodes)) return found;
  }
  return nullptr;
}

// Stands for a file of a guest in the table of numbers.
class Noted : public Node {
 public:
  using Node::Node;
  struct stat Stat(const Caller&) override {
    return {};
  }
  void Change(const Caller&, const Changes&, Reply<Done>) override {}
};

}  // namespace

Server::Server(Backend& backend, TreeOptions options, int memory, bool resumed)
    : resumed(resumed),
      channel(memory),
      tree(std::make_shared<Tree>(
          backend, std::move(options), *timer,
          [this](const std::string& uuid) {
            cache.Changed(uuid);
            pollers.Wake();
          },
          [this](const std::string& uuid) { inodes.Retire(uuid + '/'); })),
      inodes(std::make_shared<RootDir>(tree), channel.Seed()),
      requests(std::make_shared<Requests>(*timer)) {
  tree->book = book;
  backend.SetObserver(tree.get());
}

NodePtr Server::Locate(uint64_t number) {
  const auto noted = book->Find([&](const PathRecord& record) {
    return inodes.FitsSubject(number, record.uuid) &&
           inodes.Fits(number, Noted(record.identity, record.uuid));
  });
  if (noted && tree->backend.Get(noted->uuid)) {
    const NodePtr node = GuestNoted(tree, *noted);
    inodes.Adopt(number, node);
    return node;
  }
  auto node = Search(static_cast<Dir&>(*inodes.Find(InodeTable::kRoot)), number,
                     inodes);
  if (node) inodes.Adopt(number, node);
  return node;
}

std::string Server::Unfinished() {
  // The next daemon could not begin.
  if (!tree->backend.GetHost()->connected) return "the hypervisor is away";
  std::string under_way = tree->backend.UnderWay();
  if (!under_way.empty()) return under_way + " is under way";
  std::string name = tree->passing.Any();
  files.ForEach([&](OpenFile& open) {
    if (name.empty()) name = open.HalfWritten();
  });
  return name.empty() ? name : fmt::format("'{}' is being written", name);
}

Server::~Server() {
  book->Close();  // what is known is the next daemon's
  tree->backend.SetObserver(nullptr);
  tree->Close();
  requests->Close();
  timer.reset();
  pollers.Clear();
  // Nodes keep the tree alive, and open files nodes.
  files.Clear();
  dirs.Clear();
  inodes.Clear();
}

}  // namespace sbxfs
