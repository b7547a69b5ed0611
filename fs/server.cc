#include "fs/server.h"

#include <utility>

#include "fs/tree/root_dir.h"

namespace sbxfs {

Server::Server(Backend& backend, TreeOptions options)
    : tree(std::make_shared<Tree>(
          backend, std::move(options), *timer,
          [this](const std::string& uuid) {
            cache.Changed(uuid);
            pollers.Wake();
          },
          [this](const std::string& uuid) { inodes.Retire(uuid + '/'); })),
      inodes(std::make_shared<RootDir>(tree)),
      requests(std::make_shared<Requests>(*timer)) {
  backend.SetObserver(tree.get());
}

Server::~Server() {
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
