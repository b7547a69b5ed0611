#include "fs/tree/furnished_dir.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>

#include "backend/util/text.h"
#include "fs/certificate_file.h"
#include "fs/document.h"
#include "fs/name.h"
#include "fs/text_file.h"

namespace sbxfs {

std::shared_ptr<File> RowNode(const TreePtr& tree, const Row& row,
                              const std::string& uuid) {
  if (row.form == Form::kDocument) {
    return std::make_shared<RowDocument>(tree, row, uuid);
  }
  if (row.issued) return std::make_shared<CertificateFile>(tree, row, uuid);
  return std::make_shared<TextFile>(tree, row, uuid);
}

void OpenMade(const std::shared_ptr<File>& file, const Caller& caller,
              int flags, const Reply<Made>& reply) {
  const auto opened = reply.Then<OpenFilePtr>([file](OpenFilePtr open) {
    return Made{file, std::move(open)};
  });
  opened.Guard([&] { file->Open(caller, flags, opened); });
}

Reply<Done> Clearing(const TreePtr& tree, const std::string& uuid,
                     const Reply<Done>& reply) {
  return reply.Then<Done>([tree, uuid](Done done) {
    tree->errors.Succeeded(uuid);
    return done;
  });
}

bool MoveScratch(const TreePtr& tree, const Caller& caller,
                 const std::string& from, const std::string& name, Dir& to,
                 const std::string& new_name, const Reply<Done>& reply) {
  const auto scratch =
      std::dynamic_pointer_cast<ScratchFile>(tree->passing.Find(from, name));
  if (!scratch) return false;
  const auto moved = reply.Then<Done>([=](Done done) {
    tree->passing.Remove(from, name, scratch.get());
    return done;
  });
  moved.Guard([&] { to.Receive(caller, new_name, scratch, moved); });
  return true;
}

std::shared_ptr<File> FurnishedDir::Built(const Caller& caller,
                                          const std::string& name) {
  const Row* row = FindRow(kind_, name);
  if (row == nullptr || row->form == Form::kDirectory) return nullptr;
  if (row->present != nullptr &&
      !row->present(tree_->ViewFor(caller, subject))) {
    return nullptr;
  }
  return RowNode(tree_, *row, subject);
}

bool FurnishedDir::IsDocument(const std::string& name) const {
  const Row* row = FindRow(kind_, name);
  return row != nullptr && row->form == Form::kDocument;
}

bool FurnishedDir::IsScratch(const std::string& name, int flags) const {
  // One that comes and goes by itself would be there twice.
  if (FindRow(kind_, name) != nullptr) return false;
  if ((flags & O_EXCL) != 0) return true;
  const bool looks = LooksScratch(name);
  for (const Row& row : Rows(kind_)) {
    if (row.store != nullptr && (looks || row.form == Form::kDocument) &&
        name.find(row.name) != std::string::npos) {
      return true;
    }
  }
  return false;
}

void FurnishedDir::RefuseNew(const std::string& name) const {
  if (FindRow(kind_, name) != nullptr) {
    throw Error(EPERM, fmt::format("Cannot create '{}': it comes by itself "
                                   "when there is something in it",
                                   name));
  }
  const std::string nearest = NearestName(name, RowNames(kind_));
  throw Error(
      EPERM, fmt::format(
                 "Cannot create '{}': there is no such file here; {}", name,
                 nearest.empty() ? "see README for what there is"
                                 : fmt::format("did you mean '{}'?", nearest)));
}

NodePtr FurnishedDir::Lookup(const Caller& caller, const std::string& name) {
  const Row* row = FindRow(kind_, name);
  if (row != nullptr && row->form == Form::kDirectory) return SubDir(*row);
  // Looked for first: it goes after what it becomes has come.
  NodePtr passing = tree_->passing.Find(key, name);
  if (auto file = Built(caller, name)) {
    // Whoever took a document away expects it to be gone; others still see it.
    if (!IsDocument(name) || !tree_->vacancies.Has(Thing(name), caller.pid)) {
      return file;
    }
  }
  return passing;
}

std::vector<Dir::Entry> FurnishedDir::List(const Caller& reader) {
  std::vector<Entry> entries;
  for (const Row& row : Rows(kind_)) {
    if (!row.listed) continue;
    const std::string name(row.name);
    NodePtr node = row.form == Form::kDirectory
                       ? SubDir(row)
                       : std::static_pointer_cast<Node>(Built(reader, name));
    if (node) entries.push_back({name, std::move(node)});
  }
  for (auto& entry : tree_->passing.List(key)) {
    entries.push_back(std::move(entry));
  }
  return entries;
}

std::vector<Dir::Entry> FurnishedDir::Unlisted(const Caller&) {
  std::vector<Entry> entries;
  for (const Row& row : Rows(kind_)) {
    if (!row.listed) entries.push_back({std::string(row.name), SubDir(row)});
  }
  return entries;
}

void FurnishedDir::Unlink(const Caller& caller, const std::string& name,
                          Reply<Done> reply) {
  CheckRefused(*tree_, caller, key, name);
  if (Built(caller, name)) {
    const Row* row = FindRow(kind_, name);
    if (row != nullptr && UnlinkRow(caller, *row, reply)) return;
    if (IsDocument(name)) {
      tree_->vacancies.Set(Thing(name), caller.pid);
      reply.Ok();
      return;
    }
    tree_->refusals.Set(key, caller.pid);
    Dir::Unlink(caller, name, std::move(reply));
    return;
  }
  if (!tree_->passing.Remove(key, name)) {
    throw Error(ENOENT, fmt::format("Cannot remove '{}': there is none", name));
  }
  reply.Ok();
}

void FurnishedDir::Create(const Caller& caller, const std::string& name,
                          int flags, Reply<Made> reply) {
  if (auto file = Built(caller, name)) {
    // Taken away before and now made anew.
    tree_->vacancies.Clear(Thing(name), caller.pid);
    OpenMade(file, caller, flags | O_TRUNC, reply);
    return;
  }
  if (!IsScratch(name, flags)) RefuseNew(name);
  auto scratch = std::make_shared<ScratchFile>(caller, subject, "");
  tree_->passing.Add(key, name, scratch);
  OpenMade(scratch, caller, flags, reply);
}

void FurnishedDir::Rename(const Caller& caller, const std::string& name,
                          Dir& to, const std::string& new_name,
                          Reply<Done> reply) {
  if (IsDocument(name) && Built(caller, name)) {
    TakeAway(caller, name, to, new_name);
    reply.Ok();
    return;
  }
  if (MoveScratch(tree_, caller, key, name, to, new_name, reply)) return;
  Dir::Rename(caller, name, to, new_name, std::move(reply));
}

void FurnishedDir::Receive(const Caller& caller, const std::string& name,
                           const std::shared_ptr<File>& scratch,
                           Reply<Done> reply) {
  if (const auto file = Built(caller, name)) {
    tree_->vacancies.Clear(Thing(name), caller.pid);
    const std::string text =
        std::static_pointer_cast<ScratchFile>(scratch)->Text();
    if (text.empty()) {  // an empty write changes nothing
      reply.Ok();
      return;
    }
    const auto told = Clearing(tree_, subject, reply);
    told.Guard([&] { file->StoreWhole(caller, text, told); });
    return;
  }
  if (!IsScratch(name, 0)) RefuseNew(name);
  tree_->passing.Add(key, name, scratch);
  reply.Ok();
}

// A document never goes: its text goes along under the new name, and stays in
// force here.
void FurnishedDir::TakeAway(const Caller& caller, const std::string& name,
                            Dir& to, const std::string& new_name) {
  auto* target = dynamic_cast<FurnishedDir*>(&to);
  // What is named like a document looks as if it were stored.
  if (target == nullptr || target->Built(caller, new_name) ||
      target->IsDocument(new_name) || !target->IsScratch(new_name, 0)) {
    throw Error(EPERM, fmt::format("Cannot rename '{}' to '{}': it keeps its "
                                   "place; copy it",
                                   name, new_name));
  }
  const auto document =
      std::static_pointer_cast<DocumentFile>(Built(caller, name));
  tree_->passing.Add(target->key, new_name,
                     std::make_shared<ScratchFile>(caller, target->subject,
                                                   document->Text(caller)));
  tree_->vacancies.Set(Thing(name), caller.pid);
}

}  // namespace sbxfs
