#include "fs/node.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>

namespace sbxfs {

void OpenFile::Write(const Caller&, uint64_t, std::string, int, Reply<Done>) {
  throw Error(EBADF, "Cannot write: the file was opened for reading");
}
void OpenFile::Truncate(const Caller&, uint64_t, Reply<Done> reply) {
  reply.Ok();
}
void OpenFile::Flush(const Caller&, Reply<Done> reply) { reply.Ok(); }
void OpenFile::Sync(const Caller& caller, Reply<Done> reply) {
  Flush(caller, std::move(reply));
}

void Node::FreshStat(const Caller& reader, Reply<struct stat> reply) {
  reply.Ok(Stat(reader));
}

void File::Reopen(const Caller& caller, int flags, bool,
                  Reply<OpenFilePtr> reply) {
  Open(caller, flags & ~(O_TRUNC | O_CREAT | O_EXCL), std::move(reply));
}

void LostFile::Read(const Caller&, uint64_t, size_t, Reply<std::string>) {
  Refuse();
}
void LostFile::Write(const Caller&, uint64_t, std::string, int, Reply<Done>) {
  Refuse();
}
void LostFile::Truncate(const Caller&, uint64_t, Reply<Done>) { Refuse(); }
void LostFile::Flush(const Caller&, Reply<Done>) { Refuse(); }
void LostFile::Refuse() const {
  throw Error(EIO, fmt::format("Cannot go on with '{}': the daemon of this "
                               "mount ended while it was open, and what was "
                               "written to it is lost; write it again",
                               name_));
}

void File::StoreWhole(const Caller&, const std::string&, Reply<Done>) {
  throw Error(EPERM, "Cannot replace the file: it is read-only");
}

void Dir::MakeDir(const Caller&, const std::string& name, mode_t,
                  Reply<NodePtr>) {
  throw Error(EPERM, fmt::format("Cannot make '{}': no directory can be made "
                                 "here; mkdir at the root makes a sandbox",
                                 name));
}
void Dir::RemoveDir(const Caller&, const std::string& name, Reply<Done>) {
  throw Error(EPERM, fmt::format("Cannot remove '{}': it belongs to the tree; "
                                 "rmdir of a sandbox takes the whole of it",
                                 name));
}
void Dir::Unlink(const Caller&, const std::string& name, Reply<Done>) {
  throw Error(EPERM, fmt::format("Cannot remove '{}': it belongs to the tree; "
                                 "rmdir of a sandbox takes the whole of it",
                                 name));
}
void Dir::Create(const Caller&, const std::string& name, int, Reply<Made>) {
  throw Error(EPERM,
              fmt::format("Cannot create '{}': no file can be made here; see "
                          "README for what there is",
                          name));
}
void Dir::Rename(const Caller&, const std::string& name, Dir&,
                 const std::string& new_name, Reply<Done>) {
  throw Error(EPERM, fmt::format("Cannot rename '{}' to '{}': it belongs to "
                                 "the tree and keeps its place",
                                 name, new_name));
}
void Dir::Receive(const Caller&, const std::string& name,
                  const std::shared_ptr<File>&, Reply<Done>) {
  throw Error(EPERM, fmt::format("Cannot rename to '{}': no file can be put "
                                 "here; see README for what there is",
                                 name));
}
void Dir::RefuseOther(const std::string& name) {
  throw Error(EPERM, fmt::format("Cannot make '{}': the tree has directories "
                                 "and plain files alone",
                                 name));
}

void Dir::Change(const Caller&, const Changes& changes, Reply<Done> reply) {
  if (changes.mode || changes.uid || changes.gid) {
    throw Error(EPERM,
                "Cannot change owner or mode: this directory belongs to the "
                "tree; chown and chmod are for a sandbox's directory");
  }
  reply.Ok();
}

}  // namespace sbxfs
