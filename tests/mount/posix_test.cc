#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <vector>

#include "tests/support/mounted.h"

// What POSIX and Linux say of each system call's errors, with the cases that
// pjdfstest has of them. A case that is none of this tree's says why.

namespace sbxfs {
namespace {

constexpr uid_t kSomebody = 61235;

struct Case {
  const char* what;
  std::string path;
  std::string second;  // of the calls that take two
  int error = 0;
  const char* left = nullptr;  // why it is not here
};

Case Is(int error, const char* what, std::string path,
        std::string second = {}) {
  return {what, std::move(path), std::move(second), error};
}
Case Left(const char* what, const char* why) { return {what, {}, {}, 0, why}; }

using Syscall = std::function<int(const char*, const char*)>;

std::string Long(size_t size) { return std::string(size, 'x'); }

class Posix : public Mounted {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root, to be somebody else";
    Mounted::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    std::filesystem::permissions(Dir().parent_path(),
                                 std::filesystem::perms(0755));
    Do("mkdir box two; echo '#' > box/config.yaml; ln -s loop ../loop; "
       "ln -s mnt/../round ../round; mkdir -m 777 ../out; touch ../out/file; "
       "chmod 666 ../out/file; echo 1 > /dev/null; : > box/cpus");
    before_ = Everything();
  }
  void TearDown() override {
    if (IsMounted()) {
      EXPECT_EQ(Everything(), before_);
    }
    Mounted::TearDown();
  }
  std::string Options() const override { return "loglevel=info,allow_other"; }

  std::string Everything() const {
    return Do("find . -printf '%p %y %n %U %G %m\\n' | sort; cat */cpus");
  }
  std::string At(const std::string& path) const { return Dir() / path; }
  // The errno of it, or 0.
  int Try(const Syscall& call, const std::string& path,
          const std::string& second = {}) const {
    const std::string first = At(path);
    const std::string other = At(second);
    return Call([&] { return call(first.c_str(), other.c_str()); }).error;
  }
  // The same, by another user.
  int TryAs(uid_t uid, const Syscall& call, const std::string& path,
            const std::string& second = {}) const {
    const pid_t child = fork();
    if (child == 0) {
      const gid_t gid = uid;
      if (setgroups(0, nullptr) != 0 || setresgid(gid, gid, gid) != 0 ||
          setresuid(uid, uid, uid) != 0) {
        _exit(255);
      }
      _exit(Try(call, path, second));
    }
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status));
    return WEXITSTATUS(status);
  }
  void Check(const char* name, const Syscall& call,
             const std::vector<Case>& cases, uid_t uid = 0) const {
    for (const auto& one : cases) {
      if (one.left != nullptr) continue;
      EXPECT_STREQ(
          strerrorname_np(uid == 0 ? Try(call, one.path, one.second)
                                   : TryAs(uid, call, one.path, one.second)),
          strerrorname_np(one.error))
          << name << ": " << one.what << ": " << one.path << ' ' << one.second;
    }
  }

 private:
  std::string before_;
};

int OpenAndClose(const char* path, int flags, mode_t mode = 0) {
  const int fd = open(path, flags | O_CLOEXEC, mode);
  return fd < 0 ? -1 : close(fd);
}

// Every call that takes a name, used on `path`.
struct NamedCall {
  const char* name;
  bool changes;  // needs a file system that can be written
  Syscall call;
};

const NamedCall kCalls[] = {
    {"open", false,
     [](const char* path, const char*) {
       return OpenAndClose(path, O_RDONLY);
     }},
    {"open to write", true,
     [](const char* path, const char*) {
       return OpenAndClose(path, O_WRONLY);
     }},
    {"creat", true,
     [](const char* path, const char*) {
       return OpenAndClose(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
     }},
    {"opendir", false,
     [](const char* path, const char*) {
       return OpenAndClose(path, O_RDONLY | O_DIRECTORY);
     }},
    {"stat", false,
     [](const char* path, const char*) {
       struct stat stat {};
       return ::stat(path, &stat);
     }},
    {"statvfs", false,
     [](const char* path, const char*) {
       struct statvfs stat {};
       return statvfs(path, &stat);
     }},
    {"access", false,
     [](const char* path, const char*) { return access(path, R_OK); }},
    {"readlink", false,
     [](const char* path, const char*) {
       char target[64];
       return static_cast<int>(
           std::min<ssize_t>(0, readlink(path, target, sizeof(target))));
     }},
    {"mkdir", true,
     [](const char* path, const char*) { return mkdir(path, 0755); }},
    {"rmdir", true, [](const char* path, const char*) { return rmdir(path); }},
    {"unlink", true,
     [](const char* path, const char*) { return unlink(path); }},
    {"rename from", true,
     [](const char* path, const char* other) { return rename(path, other); }},
    {"rename to", true,
     [](const char* path, const char* other) { return rename(other, path); }},
    {"link from", true,
     [](const char* path, const char* other) {
       return linkat(AT_FDCWD, path, AT_FDCWD, other, AT_SYMLINK_FOLLOW);
     }},
    {"link to", true,
     [](const char* path, const char* other) { return link(other, path); }},
    {"symlink", true,
     [](const char* path, const char*) { return symlink("target", path); }},
    {"mkfifo", true,
     [](const char* path, const char*) { return mkfifo(path, 0644); }},
    {"mknod", true,
     [](const char* path, const char*) {
       return mknod(path, S_IFREG | 0644, 0);
     }},
    {"truncate", true,
     [](const char* path, const char*) { return truncate(path, 0); }},
    {"chmod", true,
     [](const char* path, const char*) { return chmod(path, 0600); }},
    {"chown", true,
     [](const char* path, const char*) { return chown(path, 0, 0); }},
    {"utimensat", true,
     [](const char* path, const char*) {
       return utimensat(AT_FDCWD, path, nullptr, 0);
     }},
};

TEST_F(Posix, EveryCallFailsOnAPathThatLeadsNowhere) {
  const Case cases[] = {
      Is(ENOTDIR, "a file on the way", "box/cpus/x", "box/memory"),
      Is(ENOTDIR, "a command's file on the way", "box/status/x", "box/memory"),
      Is(ENOENT, "nothing on the way", "nobox/x", "box/memory"),
      Is(ENOENT, "nothing on the way, in .host", ".host/none/x", "box/memory"),
      Is(ENAMETOOLONG, "256 bytes, at the root", Long(256), "box/memory"),
      Is(ENAMETOOLONG, "256 bytes on the way", Long(256) + "/x", "box/memory"),
      Is(ENAMETOOLONG, "256 bytes, in a sandbox", "box/" + Long(256),
         "box/memory"),
      Is(ENAMETOOLONG, "1024 bytes", "box/ports/" + Long(1024), "box/memory"),
      Is(ENAMETOOLONG, "1025 bytes", "box/ports/" + Long(1025), "box/memory"),
      Is(ENAMETOOLONG, "256 bytes, of a template",
         ".host/templates/" + Long(251) + ".yaml", "box/memory"),
      Is(ENAMETOOLONG, "a path of PATH_MAX", "box/" + Long(PATH_MAX),
         "box/memory"),
      Is(ELOOP, "a link to itself on the way", "../loop/x", "box/memory"),
      Is(ELOOP, "a link through the tree to itself on the way", "../round/x",
         "box/memory"),
      Left("EFAULT", "the kernel's, before it comes to the tree"),
  };
  for (const auto& one : kCalls) {
    Check(one.name, one.call, {std::begin(cases), std::end(cases)});
  }
}

TEST_F(Posix, EveryCallFailsBehindADirectoryThatIsClosed) {
  for (const auto& one : kCalls) {
    Check(one.name, one.call,
          {Is(EACCES, "search", "box/cpus", "two"),
           Is(EACCES, "search, a new name", "box/new", "two"),
           Is(EACCES, "search, deeper", "box/snapshots/x", "two")},
          kSomebody);
  }
}

// What it may look at, somebody may not change.
TEST_F(Posix, EveryChangeOfWhatIsAnothersFails) {
  Do("chmod 755 box");
  for (const auto& one : kCalls) {
    if (!one.changes) continue;
    const std::string name = one.name;
    // EXDEV and protected_hardlinks come before it.
    if (name.starts_with("link")) continue;
    const bool of_owner =
        name == "chmod" || name == "chown" || name == "utimensat";
    const bool opened = name == "open to write" || name == "truncate";
    const bool makes = name == "creat" || name == "mkdir" ||
                       name == "symlink" || name == "mkfifo" ||
                       name == "mknod" || name == "link to";
    if (makes) {
      Check(one.name, one.call,
            {Is(EACCES, "write in a sandbox", "box/new"),
             Is(EACCES, "write in .host", ".host/new")},
            kSomebody);
    } else if (of_owner) {
      Check(one.name, one.call,
            {Is(name == "utimensat" ? EACCES : EPERM, "not the owner",
                "box/cpus"),
             Is(name == "utimensat" ? EACCES : EPERM, "not the owner, of a dir",
                "box")},
            kSomebody);
    } else if (opened) {
      Check(one.name, one.call, {Is(EACCES, "no mode to write", "box/cpus")},
            kSomebody);
    }
  }
  const Syscall change = [](const char* from, const char* to) {
    return rename(from, to);
  };
  Check("rename", change,
        {Is(EPERM, "sticky: another's", "box", "other"),
         Is(EPERM, "sticky: onto another's", "two", "box"),
         Is(EACCES, "out of a directory of another's", "box/cpus", "cpus")},
        kSomebody);
  Check(
      "rmdir", [](const char* path, const char*) { return rmdir(path); },
      {Is(EPERM, "sticky: another's", "box"),
       Is(EACCES, "in .host", ".host/templates")},
      kSomebody);
  Check(
      "unlink", [](const char* path, const char*) { return unlink(path); },
      {Is(EACCES, "in a directory of another's", "box/cpus")}, kSomebody);
  Do("chmod 700 box");
}

TEST_F(Posix, OpenFailsAsItShould) {
  const auto with = [](int flags) {
    return [flags](const char* path, const char*) {
      return OpenAndClose(path, flags, 0644);
    };
  };
  Check("open O_RDWR", with(O_RDWR),
        {Is(EISDIR, "a directory to write", "box"),
         Is(EISDIR, "the root to write", ""),
         Is(EISDIR, "a built-in directory", "box/ports"),
         Is(0, "a file", "box/cpus")});
  Check(
      "open O_CREAT", with(O_WRONLY | O_CREAT),
      {Is(EISDIR, "a directory", "box"), Is(0, "one that is there", "box/cpus"),
       Is(EPERM, "a new name that means nothing", "box/new"),
       Is(EPERM, "the same at the root", "new"),
       Is(EISDIR, "a name that ends in a slash", "box/new/")});
  Check("open O_EXCL", with(O_WRONLY | O_CREAT | O_EXCL),
        {Is(EEXIST, "a file", "box/cpus"), Is(EEXIST, "a directory", "box"),
         Is(EEXIST, "a document", "box/config.yaml"),
         Is(EEXIST, "a link", "../loop")});
  Check("open O_DIRECTORY", with(O_RDONLY | O_DIRECTORY),
        {Is(ENOTDIR, "a file", "box/cpus"), Is(0, "a directory", "box/ports")});
  Check("open O_NOFOLLOW", with(O_RDONLY | O_NOFOLLOW),
        {Is(ELOOP, "a link", "../loop"), Is(0, "a file", "box/cpus")});
  Check("open O_TMPFILE", with(O_RDWR | O_TMPFILE),
        {Is(EOPNOTSUPP, "no file without a name", "box")});
  Check("open O_RDONLY", with(O_RDONLY),
        {Is(ENOTDIR, "a file with a slash behind it", "box/cpus/"),
         Is(0, "the root", ""), Is(ENOENT, "no such name", "box/new"),
         Is(ENOENT, "255 bytes are a name", "box/" + Long(255)),
         Left("ENXIO of a FIFO without a reader", "there are no FIFOs"),
         Left("ETXTBSY", "no file here can be executed"),
         Left("EOVERFLOW", "no text has two gibibytes"),
         Left("EMFILE, ENFILE", "the kernel's, wherever the file lies")});
  // root may open what has no mode for it: the tree still says no.
  Check("open to write", with(O_WRONLY),
        {Is(EACCES, "what nobody can write", "box/reason"),
         Is(EACCES, "what nobody can write, of .host", ".host/list")});
}

TEST_F(Posix, MkdirFailsAsItShould) {
  Check(
      "mkdir", [](const char* path, const char*) { return mkdir(path, 0755); },
      {Is(EEXIST, "a directory", "box"), Is(EEXIST, "a file", "box/cpus"),
       Is(EEXIST, "a link", "../loop"), Is(EEXIST, "the root", ""),
       Is(EEXIST, "dot", "box/."), Is(EEXIST, "dot dot", "box/.."),
       Is(EEXIST, "of .host", ".host"),
       Is(EEXIST, "the same name to a guest", "BOX"),
       Is(EPERM, "in a sandbox", "box/new"), Is(EPERM, "in .host", ".host/new"),
       Is(EINVAL, "no name of a host", "a b"),
       Is(ENAMETOOLONG, "59 bytes are no name of a host", Long(59)),
       Is(EINVAL, "a name that stands for a document", "new.yaml"),
       Left("EMLINK", "directories have as many links as they have"),
       Left("EROFS", "Posix.AReadOnlyMountRefusesEveryChange"),
       Left("ENOSPC", "FullPoolTest, with a pool that is full"),
       Left("EPERM of immutable and append-only flags",
            "there are no such flags: EOPNOTSUPP, as for lsattr(1)")});
}

TEST_F(Posix, RmdirFailsAsItShould) {
  Do("echo start > two/status");
  Check("rmdir", [](const char* path, const char*) { return rmdir(path); },
        {Is(ENOENT, "nothing", "nobox"), Is(ENOTDIR, "a file", "box/cpus"),
         Is(ENOTDIR, "a link", "../loop"), Is(EINVAL, "dot", "box/."),
         Is(ENOTEMPTY, "dot dot", "box/ports/.."),
         Is(EBUSY, "the root of a mount", ""),
         Is(EPERM, "one of the tree's", "box/ports"),
         Is(EPERM, "one of the tree's, in .host", ".host/templates"),
         Is(EPERM, "the hypervisor", ".host"),
         Is(EBUSY, "a guest that runs", "two"),
         Left("ENOTEMPTY",
              "a sandbox goes with all that is in it; folders of "
              "templates: Templates.FoldersAreTheUsers")});
  Do("echo kill > two/status");
}

TEST_F(Posix, UnlinkFailsAsItShould) {
  // A child, since who is refused a removal is refused all for a while.
  const Syscall in_a_child = [](const char* path, const char*) {
    const pid_t child = fork();
    if (child == 0) _exit(unlink(path) == 0 ? 0 : errno);
    int status = 0;
    waitpid(child, &status, 0);
    errno = WEXITSTATUS(status);
    return errno == 0 ? 0 : -1;
  };
  Check("unlink", in_a_child,
        {Is(ENOENT, "nothing", "box/none"), Is(EISDIR, "a sandbox", "box"),
         Is(EISDIR, "a built-in directory", "box/ports"),
         Is(EISDIR, "the hypervisor", ".host"),
         Is(ENOTDIR, "a file with a slash", "box/cpus/"),
         Is(EPERM, "a file of the tree's", "box/cpus"),
         Is(EPERM, "one that nobody writes", "box/reason"),
         Is(EPERM, "one of .host's", ".host/list"),
         Is(ENOENT, "no port", "box/ports/3000"),
         Is(0, "a document, which stays", "box/config.yaml"),
         Left("EBUSY of a mount point", "the kernel's"),
         Left("the count of links falls", "each file has one name")});
}

TEST_F(Posix, RenameFailsAsItShould) {
  const Syscall call = [](const char* from, const char* to) {
    return rename(from, to);
  };
  const auto with = [](unsigned flags) {
    return [flags](const char* from, const char* to) {
      return renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
    };
  };
  Do("mkdir -p ../out/dir/full");
  Check("rename", call,
        {Is(ENOENT, "nothing", "nobox", "new"),
         Is(EINVAL, "a directory into itself", "box", "box/new"),
         Is(EINVAL, "deeper", "box", "box/ports/new"),
         Is(EBUSY, "dot", "box/.", "new"),
         Is(EBUSY, "dot dot", "box/..", "new"),
         Is(EBUSY, "to dot", "two", "box/."),
         Is(0, "onto itself", "box", "box"),
         Is(0, "a file onto itself", "box/cpus", "box/cpus"),
         Is(ENOTDIR, "a directory onto a file", "two", "box/cpus"),
         Is(EISDIR, "a file onto a directory", "box/cpus", "two"),
         Is(EEXIST, "onto another sandbox", "box", "two"),
         Is(EINVAL, "to what is no name of a host", "box", "a b"),
         Is(ENAMETOOLONG, "to 59 bytes", "box", Long(59)),
         Is(EPERM, "a sandbox into another", "box", "two/box"),
         Is(EPERM, "a file of the tree's", "box/cpus", "box/new"),
         Is(EPERM, "one to another's", "box/cpus", "two/cpus"),
         Is(EPERM, "a built-in directory", "box/ports", "box/new"),
         Is(EPERM, "the hypervisor", ".host", "host"),
         Is(EXDEV, "out of the mount", "box", "../out/box"),
         Is(EXDEV, "a file out of it", "box/cpus", "../out/cpus"),
         Is(EXDEV, "a file into it", "../out/file", "box/cpus"),
         Is(EXDEV, "a directory into it", "../out/dir", "new"),
         Left("ENOTEMPTY", "onto a sandbox it is EEXIST, empty or not"),
         Left("EMLINK", "see mkdir"),
         Left("EBUSY of a mount point", "the kernel's")});
  Check("rename RENAME_NOREPLACE", with(RENAME_NOREPLACE),
        {Is(EEXIST, "a sandbox", "box", "two"),
         Is(EEXIST, "a file", "box/cpus", "box/memory")});
  Check("rename RENAME_EXCHANGE", with(RENAME_EXCHANGE),
        {Is(EINVAL, "two sandboxes", "box", "two"),
         Is(EINVAL, "two files", "box/cpus", "box/memory")});
  Check("rename RENAME_WHITEOUT", with(RENAME_WHITEOUT),
        {Is(EINVAL, "a sandbox", "box", "new")});
}

TEST_F(Posix, OtherKindsOfFilesCannotBeMade) {
  for (const char* name : {"symlink", "mkfifo", "mknod"}) {
    for (const auto& one : kCalls) {
      if (std::string(name) != one.name) continue;
      Check(name, one.call,
            {Is(EEXIST, "a directory", "box"), Is(EEXIST, "a file", "box/cpus"),
             Is(EPERM, "at the root", "new"), Is(EPERM, "in it", "box/new"),
             Is(EPERM, "in .host", ".host/new"),
             Is(EPERM, "of ports", "box/ports/3000"),
             Is(EPERM, "of templates", ".host/templates/new.yaml")});
    }
  }
  Check("link", [](const char* from, const char* to) { return link(from, to); },
        {Is(ENOENT, "of nothing", "box/none", "box/new"),
         Is(EEXIST, "onto a file", "box/cpus", "box/memory"),
         Is(EPERM, "of a directory", "box", "new"),
         Is(EPERM, "of a file", "box/cpus", "box/new"),
         Is(EPERM, "of a document", "box/config.yaml", "box/config.yaml.bak"),
         Is(EXDEV, "out of the mount", "box/cpus", "../out/cpus"),
         Is(EXDEV, "into it", "../out/file", "box/new"),
         Left("EMLINK, and the link count of files", "each has one name"),
         Left("ctime of a file that is linked", "none is")});
}

TEST_F(Posix, TruncateFailsAsItShould) {
  const auto to = [](off_t size) {
    return
        [size](const char* path, const char*) { return truncate(path, size); };
  };
  Check("truncate", to(0),
        {Is(EISDIR, "a directory", "box"), Is(ENOENT, "nothing", "box/none"),
         Is(0, "a value, which stays", "box/cpus"),
         Is(0, "a document, which stays", "box/config.yaml"),
         Left("ETXTBSY", "see open"), Left("EROFS", "see mkdir"),
         Left("the text is cut",
              "truncation changes nothing (sbxfs(5)), but "
              "that of scratch files: RandomCalls")});
  Check("truncate", to(-1), {Is(EINVAL, "less than nothing", "box/cpus")});
  const auto of = [](int flags, off_t size) {
    return [flags, size](const char* path, const char*) {
      const UniqueFd fd(open(path, flags | O_CLOEXEC));
      return ftruncate(fd.Get(), size);
    };
  };
  Check("ftruncate", of(O_RDONLY, 0),
        {Is(EINVAL, "opened to read", "box/cpus"),
         Is(EINVAL, "a directory", "box")});
  Check("ftruncate", of(O_WRONLY, -1),
        {Is(EINVAL, "less than nothing", "box/cpus")});
  Check("ftruncate", of(O_WRONLY, (1 << 20) + 1),
        {Is(E2BIG, "more than a document has", "box/config.yaml"),
         Left("EFBIG", "E2BIG is what the tree says of long texts")});
  Check("posix_fallocate",
        [](const char* path, const char*) {
          const UniqueFd fd(open(path, O_WRONLY | O_CLOEXEC));
          return fallocate(fd.Get(), 0, 0, 10);
        },
        {Is(EOPNOTSUPP, "a value", "box/cpus"),
         Is(EOPNOTSUPP, "a document", "box/config.yaml")});
}

TEST_F(Posix, AReadOnlyMountRefusesEveryChange) {
  ASSERT_EQ(
      RunProgram({"mount", "--bind", Dir().string(), At("../out")}).status, 0);
  ASSERT_EQ(RunProgram({"mount", "-o", "remount,bind,ro", At("../out")}).status,
            0);
  for (const auto& one : kCalls) {
    const std::string name = one.name;
    if (!one.changes) continue;
    const bool makes = name == "creat" || name == "mkdir" ||
                       name == "symlink" || name == "mkfifo" ||
                       name == "mknod" || name == "link to" ||
                       name == "rename to";
    Check(one.name, one.call,
          {Is(EROFS, "read-only", makes ? "../out/box/new" : "../out/box/cpus",
              makes ? "../out/box/memory" : "../out/box/new")});
  }
  EXPECT_EQ(RunProgram({"umount", At("../out")}).status, 0);
}

}  // namespace
}  // namespace sbxfs
