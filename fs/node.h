#ifndef SBXFS_FS_NODE_H_
#define SBXFS_FS_NODE_H_

#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"

// What the tree is made of, without a FUSE type: ops.cc decodes requests, calls
// one of these functions and sends what they answer. Each may be called from
// any thread and throws Error or fails its reply; each default refuses.

namespace sbxfs {

// One open(2) of a file.
class OpenFile {
 public:
  virtual ~OpenFile() = default;

  virtual void Read(const Caller& caller, uint64_t offset, size_t size,
                    Reply<std::string> reply) = 0;
  // `flags` are those of open(2) as they are now.
  virtual void Write(const Caller& caller, uint64_t offset, std::string bytes,
                     int flags, Reply<Done> reply);
  virtual void Truncate(const Caller& caller, uint64_t size, Reply<Done> reply);
  // close(2) of one copy of the descriptor, by whichever process.
  virtual void Flush(const Caller& caller, Reply<Done> reply);
  virtual void Sync(const Caller& caller, Reply<Done> reply);
  // The last copy is gone.
  virtual void Release() {}

  // Whether each write is a change of its own.
  [[nodiscard]] virtual bool Commands() const { return false; }
  // The bytes that a flush by the caller would store; none: it stores nothing.
  [[nodiscard]] virtual std::optional<uint64_t> Staged(const Caller&) {
    return {};
  }
  // While it is being written: what has been taken so far.
  [[nodiscard]] virtual std::optional<uint64_t> Size() const { return {}; }
  // For poll(2): whether there is something this open file has not read.
  [[nodiscard]] virtual bool Unread(const Caller&) { return true; }
  [[nodiscard]] virtual bool Pollable() const { return false; }
  // Whether the kernel may keep its bytes while it is open.
  [[nodiscard]] virtual bool Cached() const { return false; }
  // Whether a write of `bytes` may be done twice, and says the same then.
  [[nodiscard]] virtual bool MayRepeat(const std::string&) { return false; }
  // Its name, if it has taken what another daemon could not know of.
  [[nodiscard]] virtual std::string HalfWritten() { return {}; }
};
using OpenFilePtr = std::shared_ptr<OpenFile>;

// One that was lost with the daemon it was opened through.
class LostFile : public OpenFile {
 public:
  explicit LostFile(std::string name) : name_(std::move(name)) {}
  void Read(const Caller&, uint64_t, size_t, Reply<std::string>) override;
  void Write(const Caller&, uint64_t, std::string, int, Reply<Done>) override;
  void Truncate(const Caller&, uint64_t, Reply<Done>) override;
  void Flush(const Caller&, Reply<Done>) override;

 private:
  [[noreturn]] void Refuse() const;
  const std::string name_;
};

// What chmod and chown ask for; nothing: touch.
using Changes = FileRights;

class Node : public std::enable_shared_from_this<Node> {
 public:
  // `key` names the object in the inode table, the same for all its life and
  // for no other. `subject` is the uuid of the sandbox it belongs to, or empty.
  Node(std::string key, std::string subject)
      : key(std::move(key)), subject(std::move(subject)) {}
  virtual ~Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  const std::string key;
  const std::string subject;

  // All but st_ino. Error(ENOENT) when the object is gone.
  [[nodiscard]] virtual struct stat Stat(const Caller& reader) = 0;
  // Stat for stat(2); may bring itself up to date first.
  virtual void FreshStat(const Caller& reader, Reply<struct stat> reply);
  // Whether a new lookup gets another inode while a write waits, since the
  // kernel lets one writer into an inode at a time.
  [[nodiscard]] virtual bool Overtakable() const { return false; }
  // What its number is of: its key, or more. Begins with that.
  [[nodiscard]] virtual const std::string& Identity() const { return key; }
  // Its key, or one that tells better where it is.
  [[nodiscard]] virtual std::string Place() const { return key; }
  // Whether what is written to it is nobody else's business.
  [[nodiscard]] virtual bool Hidden() const { return false; }
  // Whether its attributes are the same for all readers and differ only when
  // its sandbox has changed, so that the kernel may keep them until it is told.
  [[nodiscard]] virtual bool Steady() const { return false; }
  // For how many seconds the kernel may take what is said of it for true,
  // though nobody tells when it is not.
  [[nodiscard]] virtual double Lasts() const { return 0; }
  // Whether it is a file of a guest (fs/tree/guest_files.h): what is done with
  // it is that guest's affair, and takes as long as the guest does.
  [[nodiscard]] virtual bool Foreign() const { return false; }
  // Whether it passes with this daemon: a change of it is none of a sandbox.
  [[nodiscard]] virtual bool Transient() const { return false; }
  virtual void Change(const Caller& caller, const Changes& changes,
                      Reply<Done> reply) = 0;
};
using NodePtr = std::shared_ptr<Node>;

// A symbolic link.
class Link : public Node {
 public:
  using Node::Node;
  [[nodiscard]] virtual std::string Target(const Caller& reader) = 0;
  // The same, by asking somebody who may take a while.
  virtual void FindTarget(const Caller& reader, Reply<std::string> reply) {
    reply.Ok(Target(reader));
  }
};

class File : public Node {
 public:
  using Node::Node;
  virtual void Open(const Caller& caller, int flags,
                    Reply<OpenFilePtr> reply) = 0;
  // Opened, with those flags, through the daemon before this one, which has or
  // has not ended with nothing half written. What was lost with it answers EIO.
  virtual void Reopen(const Caller& caller, int flags, bool whole,
                      Reply<OpenFilePtr> reply);
  // truncate(2), of a name and so of no open file: what has a value keeps it.
  virtual void Truncate(uint64_t) {}
  // A finished scratch file was renamed onto this one: one write of its text.
  virtual void StoreWhole(const Caller& caller, const std::string& text,
                          Reply<Done> reply);
};

// What creat(2) comes to.
struct Made {
  NodePtr node;
  OpenFilePtr file;
};

class Dir : public Node {
 public:
  struct Entry {
    std::string name;
    NodePtr node;
  };

  using Node::Node;
  // Null when there is no such name.
  [[nodiscard]] virtual NodePtr Lookup(const Caller& caller,
                                       const std::string& name) = 0;
  // Built-in names first.
  [[nodiscard]] virtual std::vector<Entry> List(const Caller& reader) = 0;

  // Both, by asking somebody who may take a while.
  virtual void AskFor(const Caller& caller, const std::string& name,
                      Reply<NodePtr> reply) {
    reply.Ok(Lookup(caller, name));
  }
  virtual void AskAll(const Caller& reader, Reply<std::vector<Entry>> reply) {
    reply.Ok(List(reader));
  }
  // What is here and not listed.
  [[nodiscard]] virtual std::vector<Entry> Unlisted(const Caller&) {
    return {};
  }

  virtual void MakeDir(const Caller& caller, const std::string& name,
                       mode_t mode, Reply<NodePtr> reply);
  // Whether that copies a disk, and so takes as long as that is large.
  [[nodiscard]] virtual bool MakingTakesLong() { return false; }
  virtual void RemoveDir(const Caller& caller, const std::string& name,
                         Reply<Done> reply);
  virtual void Unlink(const Caller& caller, const std::string& name,
                      Reply<Done> reply);
  // There is nothing of that name, as far as the kernel knows.
  virtual void Create(const Caller& caller, const std::string& name, int flags,
                      Reply<Made> reply);
  virtual void Rename(const Caller& caller, const std::string& name, Dir& to,
                      const std::string& new_name, Reply<Done> reply);
  // A finished scratch file is renamed to `name` in here, from wherever.
  virtual void Receive(const Caller& caller, const std::string& name,
                       const std::shared_ptr<File>& scratch, Reply<Done> reply);
  // Whether a scratch file renamed to a new `name` is one no more.
  [[nodiscard]] virtual bool MakesOf(const std::string&) const { return false; }
  // symlink, link, mknod of this name.
  [[noreturn]] virtual void RefuseOther(const std::string& name);

  void Change(const Caller& caller, const Changes& changes,
              Reply<Done> reply) override;
};

}  // namespace sbxfs

#endif  // SBXFS_FS_NODE_H_
