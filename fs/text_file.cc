#include "fs/text_file.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "backend/util/text.h"
#include "fs/attributes.h"
#include "fs/open_text.h"

namespace sbxfs {
namespace {

constexpr std::chrono::milliseconds kFresh{500};
constexpr std::chrono::milliseconds kConsoleEvery{200};

uint64_t SizeOf(const View& view, const Row& row) {
  switch (row.form) {
    case Form::kLog: {
      uint64_t size = 0;
      Access access(view.reader);
      for (const auto& line : LogOf(view, row)->Since(0).lines) {
        if (view.sandbox || access.MaySee(view.tree, *line))
          size += line->text.size();
      }
      return size;
    }
    case Form::kConsole:
      return view.sandbox->console ? view.sandbox->console->size() : 0;
    default:
      return row.show(view).size();
  }
}

}  // namespace

LineLogPtr LogOf(const View& view, const Row& row) {
  if (row.name == "audit") return view.tree.audit;
  return view.tree.events.Stream(view.sandbox ? view.sandbox->uuid
                                              : std::string());
}

std::string RowKey(const Tree& tree, const Row& row, const std::string& uuid) {
  return (uuid.empty() ? tree.options.at : uuid + '/') + std::string(row.name);
}

void CheckWritable(const View& view, const Row& row) {
  if (row.store == nullptr) {
    throw Error(EACCES,
                fmt::format("Cannot write '{}': it is read-only; .host/README "
                            "names the files that take writes",
                            row.name));
  }
  CheckNotTrashed(view, row.name);
}

struct stat TextFile::Stat(const Caller& reader) {
  const View view = ViewFor(reader);
  return RowStat(view, row_, SizeOf(view, row_));
}

void TextFile::FreshStat(const Caller& reader, Reply<struct stat> reply) {
  const auto sandbox = ViewFor(reader).sandbox;
  if (row_.form != Form::kConsole || sandbox->state == State::kStopped ||
      !tree_->Due(subject, kConsoleEvery)) {
    reply.Ok(Stat(reader));
    return;
  }
  tree_->Refresh(subject, Facet::kConsole, kFresh,
                 reply.Then<Done>([self = Self(), reader](Done) {
                   return self->Stat(reader);
                 }));
}

bool TextFile::Overtakable() const { return row_.name == "status"; }

void TextFile::Change(const Caller& caller, const Changes& changes,
                      Reply<Done> reply) {
  ChangeRow(ViewFor(caller), row_, Stat(caller), changes, false,
            std::move(reply));
}

void TextFile::Command(const Caller& caller, const std::string& bytes,
                       bool wait, Reply<Done> reply) {
  const View view = ViewFor(caller);
  CheckWritable(view, row_);
  row_.store({*tree_, caller, view.sandbox, OneLine(row_.name, bytes), wait},
             std::move(reply));
}

// A verb whose state already holds succeeds; the others do something each time.
bool TextFile::MayRepeat(const std::string& bytes) {
  if (row_.name == "snapshot" || row_.name == "commit") return false;
  if (row_.name != "status") return true;
  const auto verb = ParseVerb(Trim(bytes));
  return !verb || (*verb != Verb::kRestart && *verb != Verb::kReset &&
                   *verb != Verb::kFactoryReset && *verb != Verb::kDestroy);
}

void TextFile::Reopen(const Caller& caller, int flags, bool whole,
                      Reply<OpenFilePtr> reply) {
  if (row_.form == Form::kLog) {
    reply.Ok(ContinueLog(Self(), caller));
  } else {
    File::Reopen(caller, flags, whole, std::move(reply));
  }
}

void TextFile::Open(const Caller& caller, int flags, Reply<OpenFilePtr> reply) {
  const View view = ViewFor(caller);
  if ((flags & O_ACCMODE) != O_RDONLY) CheckWritable(view, row_);
  const auto open = [self = Self(), caller, flags](Done) {
    return OpenRow(self, caller, flags);
  };
  const bool fetch = row_.fresh && (row_.form != Form::kConsole ||
                                    view.sandbox->state != State::kStopped ||
                                    !view.sandbox->console);
  if (!fetch) {
    reply.Ok(open({}));
    return;
  }
  tree_->Refresh(subject, *row_.fresh, kFresh, reply.Then<Done>(open));
}

}  // namespace sbxfs
