#include "backend/guest/sftp_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <climits>

#include "backend/guest/sftp_opened.h"
#include "backend/util/error.h"

namespace sbxfs {
namespace {

using Clock = std::chrono::steady_clock;

// How long a connection that could not be made is not tried again: many may
// wait for it.
constexpr std::chrono::milliseconds kRefusedFor{1000};
// Names of a directory: a guest may never come to an end of them.
constexpr size_t kMostNames = 200000;

std::string DirectoryOf(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

[[noreturn]] void RefuseIt(int error, const char* verb, const std::string& path,
                           const char* why) {
  throw Error(error, fmt::format("Cannot {} '{}' in the guest: {}", verb,
                                 '/' + path, why));
}

}  // namespace

SftpFiles::ClientPtr SftpFiles::Need() {
  {
    ClientPtr lost;  // freed outside the lock
    MutexLock lock(client_mutex_);
    if (client_ && client_->Lives()) return client_;
    lost.swap(client_);
  }
  CheckNotEnded();
  if (refused_ && Clock::now() < refused_until_) throw Error(*refused_);
  ClientPtr made;
  try {
    made = connect_(ended_);
  } catch (const Error& error) {
    refused_ = error;
    refused_until_ = Clock::now() + kRefusedFor;
    throw;
  }
  MutexLock lock(client_mutex_);
  client_ = made;
  CheckNotEnded();
  return made;
}

void SftpFiles::CheckNotEnded() const {
  if (!ended_) return;
  throw Error(EHOSTDOWN,
              "Cannot go on with the files of the guest: it has "
              "stopped; open them again when it runs");
}

void SftpFiles::End() {
  ended_ = true;
  HangUp();
}

void SftpFiles::HangUp() {
  ClientPtr client;
  {
    MutexLock lock(client_mutex_);
    client.swap(client_);
  }
  if (client) client->Abort();
}

std::string SftpFiles::InGuest(const std::string& path) { return '/' + path; }

void SftpFiles::Check(const SftpClient::Answer& answer, const char* verb,
                      const std::string& path, int failure) {
  switch (answer.Code()) {
    case SftpClient::kOk:
      return;
    case SftpClient::kNoSuchFile:
      RefuseIt(ENOENT, verb, path, "there is no such file");
    case SftpClient::kPermissionDenied:
      RefuseIt(EACCES, verb, path, "its user may not");
    case SftpClient::kUnsupported:
      RefuseIt(EOPNOTSUPP, verb, path, "its sftp server cannot do that");
    default:
      RefuseIt(failure, verb, path, "it failed there");
  }
}

FileFacts SftpFiles::FactsOf(const SftpClient& client,
                             const SftpClient::Answer& answer,
                             const std::string& path) {
  if (answer.type != SftpClient::kAttrs) Check(answer, "look at", path, EIO);
  FileFacts facts = SftpIn(answer.body).Attributes();
  facts.own = client.IsOwn(facts.uid);
  facts.own_group = client.IsOwnGroup(facts.gid);
  return facts;
}

FileFacts SftpFiles::Facts(SftpClient& client, SftpClient::Type type,
                           const std::string& of, const std::string& path) {
  return FactsOf(client, client.Call(type, SftpOut().Text(of)), path);
}

bool SftpFiles::Exists(SftpClient& client, const std::string& path) {
  return client.Call(SftpClient::kLstat, SftpOut().Text(InGuest(path))).type ==
         SftpClient::kAttrs;
}

FileFacts SftpFiles::Look(const std::string& path) {
  return With(true, [&](const ClientPtr& client) {
    return Facts(*client, SftpClient::kLstat, InGuest(path), path);
  });
}

FileSpace SftpFiles::SpaceOf(const SftpClient::Answer& answer) {
  SftpIn in(answer.body);
  FileSpace space;
  in.U64();  // the size of blocks for reading and writing
  for (const auto field : kSpaceFields) space.*field = in.U64();
  return space;
}

FileSpace SftpFiles::Space(const std::string& path) {
  return With(true, [&](const ClientPtr& client) {
    constexpr char kStatvfs[] = "statvfs@openssh.com";
    if (!client->Has(kStatvfs)) return FileSpace();
    const auto answer = client->Call(
        SftpClient::kExtended, SftpOut().Text(kStatvfs).Text(InGuest(path)));
    if (answer.type != SftpClient::kExtendedReply) {
      Check(answer, "look at", path, EIO);
    }
    return SpaceOf(answer);
  });
}

std::vector<FileTree::Entry> SftpFiles::List(const std::string& path) {
  return With(true, [&](const ClientPtr& client) {
    const auto opened =
        client->Call(SftpClient::kOpendir, SftpOut().Text(InGuest(path)));
    if (opened.type != SftpClient::kHandle) {
      Check(opened, "list", path, ENOTDIR);
    }
    const std::string handle(SftpIn(opened.body).Text());
    const auto ask = [&] {
      return client->Send(SftpClient::kReaddir, SftpOut().Text(handle));
    };
    // The next part is on its way while this one is taken apart.
    std::vector<Entry> entries;
    size_t told = 0;
    for (uint32_t next = ask();;) {
      const auto answer = client->Await(next);
      if (answer.type != SftpClient::kName) {
        client->Drop(client->Send(SftpClient::kClose, SftpOut().Text(handle)));
        if (answer.Code() != SftpClient::kEof) {
          Check(answer, "list", path, EIO);
        }
        return entries;
      }
      next = ask();
      SftpIn in(answer.body);
      uint32_t left = in.U32();
      told += left + 1;
      if (told > kMostNames) {
        client->Drop(next);
        RefuseIt(EFBIG, "list", path, "there are too many names in it");
      }
      for (; left > 0; --left) {
        Entry entry;
        entry.name = in.Text();
        in.Text();  // a line as of ls -l
        entry.facts = in.Attributes();
        entry.facts.own = client->IsOwn(entry.facts.uid);
        entry.facts.own_group = client->IsOwnGroup(entry.facts.gid);
        if (entry.name.empty() || entry.name == "." || entry.name == ".." ||
            entry.name.size() > NAME_MAX ||
            entry.name.find_first_of(std::string_view("/\0", 2)) !=
                std::string::npos) {
          continue;
        }
        entries.push_back(std::move(entry));
      }
    }
  });
}

std::string SftpFiles::Target(const std::string& path) {
  return With(true, [&](const ClientPtr& client) {
    const auto answer =
        client->Call(SftpClient::kReadlink, SftpOut().Text(InGuest(path)));
    if (answer.type != SftpClient::kName) {
      Check(answer, "read the link", path, EINVAL);
    }
    SftpIn in(answer.body);
    if (in.U32() != 1) RefuseIt(EPROTO, "read the link", path, "nonsense");
    return std::string(in.Text());
  });
}

std::unique_ptr<FileTree::Opened> SftpFiles::Open(const std::string& path,
                                                  int flags, mode_t mode) {
  // To make it once, or to cut it, is done twice only with the same end.
  const bool again = (flags & O_EXCL) == 0;
  return With(
      again, [&](const ClientPtr& client) -> std::unique_ptr<FileTree::Opened> {
        if ((flags & O_TRUNC) != 0) ++writes_;
        FileChanges made;
        const bool making = (flags & O_CREAT) != 0;
        if (making) made.mode = mode & 07777;
        const uint32_t open =
            client->Send(SftpClient::kOpen, SftpOut()
                                                .Text(InGuest(path))
                                                .U32(SftpFlags(flags))
                                                .Attributes(made));
        // What was made is looked at next: asked at once that takes no longer.
        std::optional<FileFacts> found;
        if (making) {
          const auto told =
              client->Call(SftpClient::kLstat, SftpOut().Text(InGuest(path)));
          if (told.type == SftpClient::kAttrs) {
            found = FactsOf(*client, told, path);
          }
        }
        const auto answer = client->Await(open);
        if (answer.type != SftpClient::kHandle) {
          const bool there = answer.Code() == SftpClient::kFailure &&
                             (flags & O_EXCL) != 0 && found;
          Check(answer, "open", path, there ? EEXIST : EPERM);
        }
        auto opened = std::make_unique<SftpOpened>(
            shared_from_this(), path, flags, client,
            std::string(SftpIn(answer.body).Text()));
        opened->found = found;
        return opened;
      });
}

void SftpFiles::Set(const std::string& path, const FileChanges& changes) {
  With(true, [&](const ClientPtr& client) {
    FileChanges all = changes;
    // Owners and times go in pairs.
    const FileFacts now =
        Facts(*client, SftpClient::kLstat, InGuest(path), path);
    if (all.uid || all.gid) {
      all.uid = all.uid.value_or(now.uid);
      all.gid = all.gid.value_or(now.gid);
    }
    if (all.read || all.modified) {
      all.read = all.read.value_or(now.read);
      all.modified = all.modified.value_or(now.modified);
    }
    if (all.size) ++writes_;
    if (!S_ISLNK(now.mode)) {
      const auto answer = client->Call(
          SftpClient::kSetstat, SftpOut().Text(InGuest(path)).Attributes(all));
      // What chmod(2) and chown(2) say to one who is not the owner.
      if (!all.size && answer.Code() == SftpClient::kPermissionDenied) {
        RefuseIt(EPERM, "change", path, "its user may not");
      }
      Check(answer, "change", path, EPERM);
      return;
    }
    constexpr char kOfLinks[] = "lsetstat@openssh.com";
    if (!client->Has(kOfLinks)) {
      RefuseIt(EPERM, "change", path, "it is a link");
    }
    Check(client->Call(
              SftpClient::kExtended,
              SftpOut().Text(kOfLinks).Text(InGuest(path)).Attributes(all)),
          "change", path, EPERM);
  });
}

void SftpFiles::MakeDir(const std::string& path, mode_t mode) {
  With(false, [&](const ClientPtr& client) {
    FileChanges made;
    made.mode = mode & 07777;
    const auto answer = client->Call(
        SftpClient::kMkdir, SftpOut().Text(InGuest(path)).Attributes(made));
    if (answer.Code() == SftpClient::kOk) return;
    Check(answer, "make", path, Exists(*client, path) ? EEXIST : EIO);
  });
}

void SftpFiles::MakeLink(const std::string& path, const std::string& target) {
  With(false, [&](const ClientPtr& client) {
    // OpenSSH has the two the other way round than they were meant.
    const auto answer = client->Call(
        SftpClient::kSymlink, SftpOut().Text(target).Text(InGuest(path)));
    if (answer.Code() == SftpClient::kOk) return;
    Check(answer, "make the link", path, Exists(*client, path) ? EEXIST : EIO);
  });
}

void SftpFiles::MakeName(const std::string& path, const std::string& new_path) {
  With(false, [&](const ClientPtr& client) {
    constexpr char kHardLink[] = "hardlink@openssh.com";
    if (!client->Has(kHardLink)) {
      RefuseIt(EPERM, "link", path, "its sftp server cannot do that");
    }
    const auto answer = client->Call(
        SftpClient::kExtended,
        SftpOut().Text(kHardLink).Text(InGuest(path)).Text(InGuest(new_path)));
    if (answer.Code() == SftpClient::kOk) return;
    Check(answer, "link", path, Exists(*client, new_path) ? EEXIST : EPERM);
  });
}

void SftpFiles::Remove(const std::string& path) {
  With(false, [&](const ClientPtr& client) {
    Check(client->Call(SftpClient::kRemove, SftpOut().Text(InGuest(path))),
          "remove", path, EPERM);
  });
}

void SftpFiles::RemoveDir(const std::string& path) {
  With(false, [&](const ClientPtr& client) {
    Check(client->Call(SftpClient::kRmdir, SftpOut().Text(InGuest(path))),
          "remove", path, ENOTEMPTY);
  });
}

void SftpFiles::Rename(const std::string& path, const std::string& new_path) {
  With(false, [&](const ClientPtr& client) {
    constexpr char kOver[] = "posix-rename@openssh.com";
    const SftpOut names =
        std::move(SftpOut().Text(InGuest(path)).Text(InGuest(new_path)));
    SftpClient::Answer answer;
    if (client->Has(kOver)) {
      answer = client->Call(
          SftpClient::kExtended,
          SftpOut().Text(kOver).Text(InGuest(path)).Text(InGuest(new_path)));
    } else {
      answer = client->Call(SftpClient::kRename, names);
      // It goes over nothing: that there is nothing for a moment is all there
      // is to be had.
      if (answer.Code() == SftpClient::kFailure && Exists(*client, path) &&
          client->Call(SftpClient::kRemove, SftpOut().Text(InGuest(new_path)))
                  .Code() == SftpClient::kOk) {
        answer = client->Call(SftpClient::kRename, names);
      }
    }
    if (answer.Code() == SftpClient::kOk) return;
    // Onto a directory with something in it, or from one file system of the
    // guest's to another, which whoever moves then copies.
    Check(
        answer, "rename", path,
        Exists(*client, new_path) && DirectoryOf(path) == DirectoryOf(new_path)
            ? ENOTEMPTY
            : EXDEV);
  });
}

}  // namespace sbxfs
