#ifndef SBXFS_FS_SERVER_H_
#define SBXFS_FS_SERVER_H_

#include <fuse_lowlevel.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/util/timer.h"
#include "fs/channel.h"
#include "fs/handle_table.h"
#include "fs/inode_table.h"
#include "fs/kernel_cache.h"
#include "fs/path_book.h"
#include "fs/pollers.h"
#include "fs/request.h"
#include "fs/tree.h"

namespace sbxfs {

// A listing: one moment, from opendir on.
struct OpenDir {
  struct Item {
    std::string name;
    uint64_t number = 0;
    mode_t mode = 0;
    NodePtr node = nullptr;  // of a steady one
  };
  std::vector<Item> items;
};

// What the handlers of a session work on.
struct Server {
  // `memory`: of the mount's Channel. `resumed`: another daemon served it.
  Server(Backend& backend, TreeOptions options, int memory, bool resumed);
  // Answers what is unanswered; the FUSE session must still be there.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // The node that the kernel knows by that number from the daemon before; null
  // when there is none such any more.
  [[nodiscard]] NodePtr Locate(uint64_t number);
  // What no other daemon could go on with: something that is under way, or a
  // file with something half written. Empty: nothing.
  [[nodiscard]] std::string Unfinished();

  std::function<void()> on_ready;
  const bool resumed;

  Channel channel;
  // With `resumed`: nothing was half written then.
  const bool whole = channel.WasHandedOver();
  const std::shared_ptr<PathBook> book =
      std::make_shared<PathBook>(channel.MemoryFd(), Channel::BookAt());
  std::unique_ptr<Timer> timer = std::make_unique<Timer>();
  Pollers pollers{*timer};
  const TreePtr tree;
  InodeTable inodes;
  KernelCache cache{inodes, *timer};
  HandleTable<OpenFile> files;
  HandleTable<OpenDir> dirs;
  const std::shared_ptr<Requests> requests;
};

// libfuse's table of handlers; their user data is the Server.
[[nodiscard]] const fuse_lowlevel_ops& LowlevelOps();

}  // namespace sbxfs

#endif  // SBXFS_FS_SERVER_H_
