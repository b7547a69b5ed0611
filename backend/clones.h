#ifndef SBXFS_BACKEND_CLONES_H_
#define SBXFS_BACKEND_CLONES_H_

#include <string>

#include "backend/core.h"
#include "backend/images.h"
#include "backend/provision.h"
#include "backend/snapshots.h"

namespace sbxfs {

// What is made from a sandbox's disk: other sandboxes that stand on a frozen
// layer of it, and images.
class Clones {
 public:
  Clones(Core& core, Images& images, Provision& provision)
      : core_(core), images_(images), provision_(provision), snapshots_(core) {}

  // As in Backend; `tag` empty: from the disk as it is now.
  void Make(const Caller& caller, const std::string& uuid,
            const std::string& tag, const std::string& name, mode_t mode,
            Reply<SandboxPtr> reply);
  void Commit(const std::string& uuid, const std::string& image,
              Reply<Done> reply);

 private:
  [[nodiscard]] SandboxPtr MakeNow(const Caller& caller,
                                   const std::string& uuid,
                                   const std::string& tag,
                                   const std::string& name, bool with_secrets,
                                   mode_t mode, const std::string& what,
                                   const Reply<SandboxPtr>& reply);
  // Of a domain that others made, which go on writing to its disk.
  [[nodiscard]] SandboxPtr MakeCopy(const Caller& caller, const Sandbox& source,
                                    const std::string& name, mode_t mode,
                                    const std::string& what,
                                    const Reply<SandboxPtr>& reply);
  void CommitNow(const std::string& uuid, const std::string& image,
                 const std::string& what);
  // Whether a clone of it, as it is now, goes on from its memory.
  [[nodiscard]] bool TakesMemory(const Sandbox& source, const Spec& spec,
                                 bool with_secrets,
                                 const std::string& what) const;
  struct Frozen {
    std::string layer;
    std::string memory;  // volume; empty: of the disk alone
  };
  // A layer with the disk as it is, frozen by a record of that name unless it
  // was before.
  [[nodiscard]] Frozen FreezeNow(const std::string& uuid,
                                 const std::string& record, bool memory,
                                 const std::string& what);
  void DropRecord(const std::string& uuid, const std::string& record,
                  const std::string& what);

  Core& core_;
  Images& images_;
  Provision& provision_;
  Snapshots snapshots_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_CLONES_H_
