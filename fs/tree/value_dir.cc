#include "fs/tree/value_dir.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>

#include "backend/util/text.h"
#include "fs/attributes.h"
#include "fs/document.h"
#include "fs/name.h"
#include "fs/tree/entry_file.h"
#include "fs/tree/furnished_dir.h"

namespace sbxfs {
namespace {

constexpr std::string_view kNone = "none";

Collection CollectionOf(const Row& row) {
  for (const auto one : {Collection::kPorts, Collection::kSecrets}) {
    if (row.name == CollectionName(one)) return one;
  }
  return Collection::kMounts;
}

// What an entry reads as; a secret is there, and reads as nothing.
std::optional<std::string> ValueOf(const Sandbox& sandbox,
                                   Collection collection,
                                   const std::string& name) {
  if (collection == Collection::kSecrets) {
    if (!sandbox.secrets.contains(name)) return std::nullopt;
    return std::string();
  }
  const auto& items =
      collection == Collection::kPorts ? sandbox.ports : sandbox.mounts;
  const auto found = items.find(name);
  if (found == items.end()) return std::nullopt;
  return found->second;
}

// An entry, or a new file that is to become one.
class ItemFile : public EntryFile {
 public:
  ItemFile(TreePtr tree, const Row& row, const std::string& uuid,
           std::string dir, std::string name)
      : EntryFile(std::move(tree), std::move(dir), std::move(name), uuid),
        row_(row),
        collection_(CollectionOf(row)) {}

  struct stat Stat(const Caller& reader) override {
    const View view = ViewFor(reader);
    struct stat stat = RowStat(view, row_, 0);
    const mode_t mode = collection_ == Collection::kSecrets ? 0200 : 0666;
    stat.st_mode = S_IFREG | FileMode(mode, stat.st_mode);
    stat.st_nlink = 1;
    SetSize(stat, Show(view).size());
    return stat;
  }

  bool Hidden() const override { return collection_ == Collection::kSecrets; }

  std::string Show(const View& view) override {
    const auto value = ValueOf(*view.sandbox, collection_, name_);
    if (!value && !IsNew()) {
      throw Error(ENOENT, fmt::format("Cannot look at '{}': it is gone from {}",
                                      name_, row_.name));
    }
    return value && !value->empty() ? *value + '\n' : std::string();
  }

  void Open(const Caller& caller, int flags,
            Reply<OpenFilePtr> reply) override {
    if ((flags & O_ACCMODE) != O_WRONLY &&
        collection_ == Collection::kSecrets) {
      throw Error(EACCES, fmt::format("Cannot read secret '{}': it is for the "
                                      "guest alone; write it anew",
                                      name_));
    }
    if ((flags & O_ACCMODE) != O_RDONLY) {
      CheckNotTrashed(ViewFor(caller), name_);
    }
    ValueFile::Open(caller, flags, std::move(reply));
  }

  void Command(const Caller& caller, const std::string& bytes, bool,
               Reply<Done> reply) override {
    const View view = ViewFor(caller);
    CheckNotTrashed(view, name_);
    // A secret may be a key of many lines, and is no text of ours.
    const bool secret = collection_ == Collection::kSecrets;
    std::string value = secret ? bytes : OneLine(name_, bytes);
    if (!secret || Trim(value) == kNone) value = Trim(value);
    if (value.empty()) {
      throw Error(EINVAL, fmt::format("Cannot set '{}': the line is empty; "
                                      "write a value, or none to remove it",
                                      name_));
    }
    if (value == kNone) {
      if (!ValueOf(*view.sandbox, collection_, name_)) {
        reply.Ok();
        return;
      }
      value.clear();
    }
    tree_->backend.SetItem(caller, subject, collection_, name_, value,
                           std::move(reply));
  }

 private:
  const Row& row_;
  const Collection collection_;
};

}  // namespace

ValueDir::ValueDir(TreePtr tree, const Row& row, const std::string& uuid)
    : Dir(fmt::format("{}/{}/", uuid, row.name), uuid),
      tree_(std::move(tree)),
      row_(row),
      collection_(CollectionOf(row)) {}

std::optional<std::string> ValueDir::Find(const Caller& caller,
                                          const std::string& name) {
  return ValueOf(*tree_->ViewFor(caller, subject).sandbox, collection_, name);
}

std::shared_ptr<File> ValueDir::Item(const std::string& name) {
  return std::make_shared<ItemFile>(tree_, row_, subject, key, name);
}

struct stat ValueDir::Stat(const Caller& reader) {
  return RowStat(tree_->ViewFor(reader, subject), row_, 0);
}

void ValueDir::Change(const Caller& caller, const Changes& changes,
                      Reply<Done> reply) {
  ChangeRow(tree_->ViewFor(caller, subject), row_, Stat(caller), changes, false,
            std::move(reply));
}

NodePtr ValueDir::Lookup(const Caller& caller, const std::string& name) {
  // Looked for first: it goes after what it becomes has come.
  NodePtr passing = tree_->passing.Find(key, name);
  if (Find(caller, name) && !tree_->vacancies.Has(key + name, caller.pid)) {
    return Item(name);
  }
  return passing;
}

std::vector<Dir::Entry> ValueDir::List(const Caller& reader) {
  auto passing = tree_->passing.List(key);
  const auto sandbox = tree_->ViewFor(reader, subject).sandbox;
  std::vector<Entry> entries;
  const auto add = [&](const std::string& name) {
    entries.push_back({name, Item(name)});
  };
  if (collection_ == Collection::kSecrets) {
    for (const auto& name : sandbox->secrets) add(name);
  } else {
    const auto& items =
        collection_ == Collection::kPorts ? sandbox->ports : sandbox->mounts;
    for (const auto& [name, value] : items) add(name);
  }
  for (auto& entry : passing) {
    if (!ValueOf(*sandbox, collection_, entry.name)) {
      entries.push_back(std::move(entry));
    }
  }
  return entries;
}

void ValueDir::Unlink(const Caller& caller, const std::string& name,
                      Reply<Done> reply) {
  // `rm -r` was refused a file of the sandbox just before.
  CheckRefused(*tree_, caller, subject + '/', name);
  const bool passing = tree_->passing.Remove(key, name);
  if (!Find(caller, name)) {
    if (!passing) {
      throw Error(ENOENT, fmt::format("Cannot remove '{}': there is none in {}",
                                      name, row_.name));
    }
    reply.Ok();
    return;
  }
  CheckNotTrashed(tree_->ViewFor(caller, subject), name);
  tree_->backend.SetItem(caller, subject, collection_, name, "",
                         Clearing(tree_, subject, reply));
}

void ValueDir::Create(const Caller& caller, const std::string& name, int flags,
                      Reply<Made> reply) {
  CheckNotTrashed(tree_->ViewFor(caller, subject), name);
  tree_->vacancies.Clear(key + name, caller.pid);
  std::shared_ptr<File> file;
  if (Find(caller, name)) {
    file = Item(name);
  } else {
    const bool scratch = (flags & O_EXCL) != 0 || LooksScratch(name);
    file = scratch ? std::make_shared<ScratchFile>(caller, subject, "")
                   : Item(name);
    tree_->passing.Add(key, name, file);
  }
  OpenMade(file, caller, flags, reply);
}

bool ValueDir::MakesOf(const std::string& name) const {
  return !LooksScratch(name);
}

void ValueDir::Receive(const Caller& caller, const std::string& name,
                       const std::shared_ptr<File>& scratch,
                       Reply<Done> reply) {
  if (!Find(caller, name) && LooksScratch(name)) {
    tree_->passing.Add(key, name, scratch);
    reply.Ok();
    return;
  }
  tree_->vacancies.Clear(key + name, caller.pid);
  const auto told = Clearing(tree_, subject, reply);
  told.Guard([&] {
    Item(name)->StoreWhole(
        caller, std::static_pointer_cast<ScratchFile>(scratch)->Text(), told);
  });
}

void ValueDir::Rename(const Caller& caller, const std::string& name, Dir& to,
                      const std::string& new_name, Reply<Done> reply) {
  const auto value = Find(caller, name);
  if (!value) {
    if (MoveScratch(tree_, caller, key, name, to, new_name, reply)) return;
    throw Error(ENOENT, fmt::format("Cannot rename '{}': there is none in {}",
                                    name, row_.name));
  }
  if (to.key != key) {
    throw Error(EPERM, fmt::format("Cannot move '{}' to '{}': it belongs to "
                                   "{}; copy it",
                                   name, new_name, row_.name));
  }
  if (collection_ == Collection::kSecrets) {
    throw Error(EPERM, fmt::format("Cannot rename secret '{}': its value is "
                                   "the guest's alone; write '{}', then rm it",
                                   name, new_name));
  }
  CheckNotTrashed(tree_->ViewFor(caller, subject), name);
  if (LooksScratch(new_name) && !Find(caller, new_name)) {
    // An editor's copy: the entry stays in force until it is made anew.
    tree_->passing.Add(
        key, new_name,
        std::make_shared<ScratchFile>(caller, subject, *value + '\n'));
    tree_->vacancies.Set(key + name, caller.pid);
    reply.Ok();
    return;
  }
  Move(caller, name, new_name, *value, Clearing(tree_, subject, reply));
}

// The old entry goes first, since it holds what the new one takes: a host port,
// a place in the guest. It comes back when the new one is refused.
void ValueDir::Move(const Caller& caller, const std::string& name,
                    const std::string& new_name, const std::string& value,
                    Reply<Done> reply) {
  const auto set = [tree = tree_, uuid = subject, in = collection_, caller](
                       const std::string& item, const std::string& what,
                       const Reply<Done>& then) {
    then.Guard(
        [&] { tree->backend.SetItem(caller, uuid, in, item, what, then); });
  };
  const Reply<Done> made([=](Outcome<Done> outcome) {
    if (std::holds_alternative<Error>(outcome)) {
      set(name, value, Reply<Done>([reply, outcome](Outcome<Done>) {
            reply.Give(outcome);
          }));
      return;
    }
    reply.Give(std::move(outcome));
  });
  set(name, "", Reply<Done>([=](Outcome<Done> outcome) {
        if (std::holds_alternative<Error>(outcome)) {
          reply.Give(std::move(outcome));
          return;
        }
        set(new_name, value, made);
      }));
}

}  // namespace sbxfs
