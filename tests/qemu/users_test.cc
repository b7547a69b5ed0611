// Three users on one mount: everything of a sandbox, and every operation, by
// whom the modes let and whom they do not.
#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

struct User {
  const char* name;
  uid_t uid;
  gid_t group;  // besides that of its own number
};
constexpr gid_t kTeam = 61000;
constexpr User kAnn{"ann", 61235, kTeam};  // whose sandbox it is
constexpr User kBen{"ben", 61236, kTeam};  // to whom it may be handed
constexpr User kEve{"eve", 61237, 61237};  // neither

// The errno of a call that `user` makes, in a process of its own.
int As(const User& user, const std::function<int()>& call) {
  const pid_t pid = fork();
  if (pid == 0) {
    umask(0);
    if (setgroups(1, &user.group) != 0 ||
        setresgid(user.uid, user.uid, user.uid) != 0 ||
        setresuid(user.uid, user.uid, user.uid) != 0) {
      _exit(255);
    }
    try {
      _exit(call() < 0 ? errno : 0);
    } catch (...) {
      _exit(254);  // not into the test of the parent
    }
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

int Opens(const std::string& path, int flags) {
  const int fd = open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK, 0600);
  if (fd >= 0) close(fd);
  return fd;
}

struct Operation {
  const char* name;
  // What it needs: bits (4, 2, 1) of the path itself, of its directory, and
  // whether it is for the owner alone, or (sticky) the owner of either.
  int own = 0;
  int parent = 0;
  bool owners = false;
  bool directories = false;  // of them alone
  bool harmless = false;     // may be done where it is allowed
  std::function<int(const std::string&)> call;
};

const std::vector<Operation>& Operations() {
  static const std::vector<Operation> kAll = {
      {"read", 4, 0, false, false, true,
       [](const std::string& path) {
         const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
         char byte = 0;
         if (fd < 0) return -1;
         // Each file may have its own words on what it has not to tell.
         return read(fd, &byte, 1) < 0 && errno == EACCES ? -1 : 0;
       }},
      {"write", 2, 0, false, false, false,
       [](const std::string& path) { return Opens(path, O_WRONLY); }},
      {"overwrite", 2, 0, false, false, false,
       [](const std::string& path) { return Opens(path, O_RDWR | O_TRUNC); }},
      {"truncate", 2, 0, false, false, false,
       [](const std::string& path) { return truncate(path.c_str(), 0); }},
      {"create in", 2, 0, false, true, false,
       [](const std::string& path) {
         return Opens(path + "/new", O_WRONLY | O_CREAT | O_EXCL);
       }},
      {"mkdir in", 2, 0, false, true, false,
       [](const std::string& path) {
         return mkdir((path + "/new").c_str(), 0700);
       }},
      {"symlink in", 2, 0, false, true, false,
       [](const std::string& path) {
         return symlink("/etc/passwd", (path + "/new").c_str());
       }},
      {"unlink", 0, 2, true, false, false,
       [](const std::string& path) {
         std::error_code cannot_tell;
         return stdfs::is_directory(path, cannot_tell) ? rmdir(path.c_str())
                                                       : unlink(path.c_str());
       }},
      {"rename", 0, 2, true, false, false,
       [](const std::string& path) {
         return rename(path.c_str(), (path + "2").c_str());
       }},
      {"chmod", 0, 0, true, false, false,
       [](const std::string& path) { return chmod(path.c_str(), 0777); }},
      {"chown", 0, 0, true, false, false,
       [](const std::string& path) {
         return chown(path.c_str(), static_cast<uid_t>(-1), kEve.group);
       }},
      {"setxattr", 2, 0, true, false, false,
       [](const std::string& path) {
         return setxattr(path.c_str(), "user.x", "y", 1, 0);
       }},
      {"utimes", 0, 0, true, false, false,
       [](const std::string& path) {
         const timespec times[2] = {{1, 0}, {1, 0}};
         return utimensat(AT_FDCWD, path.c_str(), times, 0);
       }},
  };
  return kAll;
}

bool Has(const struct stat& info, const User& user, int bits) {
  const unsigned mode = info.st_mode;
  const unsigned granted =
      info.st_uid == user.uid                                ? mode >> 6
      : info.st_gid == user.uid || info.st_gid == user.group ? mode >> 3
                                                             : mode;
  return (granted & static_cast<unsigned>(bits)) == static_cast<unsigned>(bits);
}

class UsersTest : public BlankGuests {
 protected:
  void SetUp() override {
    BlankGuests::SetUp();
    if (mount_ == nullptr) return;
    stdfs::permissions(Dir().parent_path(), stdfs::perms(0755));
  }
  [[nodiscard]] std::string Options() const override {
    return std::string(kOptions) + ",allow_other";
  }
  [[nodiscard]] static struct stat Stat(const stdfs::path& path) {
    struct stat info {};
    EXPECT_EQ(lstat(path.c_str(), &info), 0) << path;
    return info;
  }
  // Whether the modes of all that leads there let the user search it.
  [[nodiscard]] bool Reaches(const User& user, const stdfs::path& path) const {
    for (auto at = path.parent_path(); at != Dir().parent_path();
         at = at.parent_path()) {
      if (!Has(Stat(at), user, 1)) return false;
    }
    return true;
  }
  [[nodiscard]] bool Allowed(const User& user, const stdfs::path& path,
                             const Operation& operation) const {
    if (!Reaches(user, path)) return false;
    const struct stat info = Stat(path);
    const struct stat parent = Stat(path.parent_path());
    if (!Has(info, user, operation.own) ||
        !Has(parent, user, operation.parent)) {
      return false;
    }
    if (!operation.owners || info.st_uid == user.uid) return true;
    // In a directory that is not sticky who may write to it may remove.
    return operation.parent != 0 &&
           (parent.st_uid == user.uid || (parent.st_mode & S_ISVTX) == 0);
  }
  [[nodiscard]] std::vector<stdfs::path> AllOf(const char* top) const {
    std::vector<stdfs::path> paths = {Dir() / top};
    for (const auto& entry : stdfs::recursive_directory_iterator(Dir() / top)) {
      paths.push_back(entry.path());
    }
    return paths;
  }
  // Of all that the modes forbid, and of what they allow and harms nothing.
  // Returns how many were tried.
  int TryAll(const User& user, const char* top) const {
    int tried = 0;
    for (const auto& path : AllOf(top)) {
      const bool directory = stdfs::is_directory(path);
      for (const Operation& operation : Operations()) {
        if (operation.directories && !directory) continue;
        if (directory && operation.own == 2 && !operation.directories) continue;
        const bool allowed = Allowed(user, path, operation);
        if (allowed && (!operation.harmless || directory)) continue;
        const int error =
            As(user, [&] { return operation.call(path.string()); });
        if (allowed) {
          // The file's mode lets in whom the sandbox lets.
          EXPECT_NE(error, EPERM)
              << user.name << ' ' << operation.name << ' ' << path;
        } else {
          EXPECT_TRUE(error == EACCES || error == EPERM || error == ENOTSUP)
              << user.name << ' ' << operation.name << ' ' << path << ": "
              << strerror(error);
        }
        ++tried;
      }
    }
    return tried;
  }
};

TEST_F(UsersTest, ThreeOfThemDoWhatTheModesSayAndNothingElse) {
  const std::string box = Dir() / "box";
  ASSERT_EQ(As(kAnn, [&] { return mkdir(box.c_str(), 0700); }), 0);
  ASSERT_EQ(
      As(kAnn, [&] { return mkdir((box + "/snapshots/s").c_str(), 0700); }), 0);
  ASSERT_EQ(WriteText(box + "/ports/8000", "127.0.0.1:18000\n", O_CREAT),
            Verdict{});
  ASSERT_EQ(WriteText(Host() / "disks/data", "64MiB\n", O_CREAT), Verdict{});
  const auto state = [&] {
    std::string text = Virsh({"list", "--all", "--name"}) +
                       Virsh({"dumpxml", "box"}) + World::Now().volumes;
    for (const char* file : {"config.yaml", "status", "ports/8000"}) {
      text += ReadText(box + "/" + file);
    }
    return text;
  };
  int tried = 0;
  for (const mode_t mode : {0700, 0710, 0755, 0550}) {
    ASSERT_EQ(chmod(box.c_str(), mode), 0);
    ASSERT_EQ(chown(box.c_str(), kAnn.uid, kTeam), 0);
    const std::string before = state();
    for (const User* user : {&kAnn, &kBen, &kEve}) {
      tried += TryAll(*user, "box");
      if (mode == 0755) tried += TryAll(*user, ".host");
      EXPECT_EQ(state(), before)
          << user->name << " in mode " << std::oct << mode;
    }
    // Whom it does not let in learns nothing of it elsewhere.
    for (const char* file : {"list", "events", "ssh_config", "audit"}) {
      const int found = As(kEve, [&] {
        const std::string text = ReadText(Host() / file);
        errno = EEXIST;
        return (mode & 1) == 0 && text.find("box") != std::string::npos ? -1
                                                                        : 0;
      });
      EXPECT_EQ(found, 0) << file << " in mode " << std::oct << mode;
    }
  }
  ASSERT_EQ(chmod(box.c_str(), 0700), 0);
  ASSERT_EQ(unlink((Host() / "disks/data").c_str()), 0);
  fmt::print("{} operations of three users in four modes\n", tried);
}

// What a user cannot read does not come into a sandbox of theirs either.
TEST_F(UsersTest, NobodyGetsAnothersThingsThroughASandboxOfTheirs) {
  const std::string place = Dir().parent_path() / "anns";
  const std::string secret = place + "/secret.img";
  ASSERT_EQ(mkdir(place.c_str(), 0700), 0);
  std::ofstream(secret) << BlankDisk();
  ASSERT_EQ(chown(place.c_str(), kAnn.uid, kAnn.uid), 0);
  ASSERT_EQ(chown(secret.c_str(), kAnn.uid, kAnn.uid), 0);
  const std::string lure = Dir().parent_path() / "lure.img";
  ASSERT_EQ(RunProgram({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw",
                        "-b", secret, lure, "1M"})
                .status,
            0);
  ASSERT_EQ(chmod(lure.c_str(), 0644), 0);
  ASSERT_EQ(WriteText(Host() / "disks/data", "64MiB\n", O_CREAT), Verdict{});
  const std::string box = Dir() / "box";
  const std::string hers = Dir() / "hers";
  ASSERT_EQ(As(kAnn, [&] { return mkdir(box.c_str(), 0755); }), 0);
  ASSERT_EQ(As(kEve, [&] { return mkdir(hers.c_str(), 0700); }), 0);
  const auto writes = [&](const std::string& file, const std::string& text) {
    return As(kEve, [&] {
      const Verdict verdict = WriteText(file, text);
      errno = verdict.error;
      return verdict.error == 0 ? 0 : -1;
    });
  };
  const auto images = [&] {
    return std::distance(stdfs::directory_iterator(Host() / "images"), {});
  };
  ASSERT_EQ(images(), 1);
  for (const std::string& config : std::vector<std::string>{
           "additionalDisks: [data]\n",
           "images: [{location: " + secret + "}]\n",
           "images: [{location: " + lure + "}]\n",
           "images: [{location: /etc/shadow}]\n",
           "mounts: [{location: " + place + "}]\n",
           "base: ../../../etc/passwd\n", "ssh: {localPort: 22}\n"}) {
    int error = writes(hers + "/config.yaml", config);
    // Some of it is looked at when it is needed.
    if (error == 0) error = writes(hers + "/status", "start\n");
    EXPECT_TRUE(error == EACCES || error == EPERM || error == EINVAL)
        << config << strerror(error) << ": " << ReadText(hers + "/error");
    EXPECT_EQ(images(), 1) << config;
    EXPECT_EQ(Status("hers"), "stopped") << config;
    EXPECT_EQ(writes(hers + "/config.yaml", "cpus: 1\n"), 0);
  }
  for (const auto& [file, text] :
       std::map<std::string, std::string>{{"/snapshot", "../box\n"},
                                          {"/commit", "blank\n"},
                                          {"/ssh_port", "22\n"}}) {
    EXPECT_NE(writes(hers + file, text), 0) << file;
  }
  // Neither as it is given away, nor by what is made of another's.
  EXPECT_EQ(As(kEve, [&] { return chown(hers.c_str(), kAnn.uid, kAnn.uid); }),
            EPERM);
  for (const std::string& path : {box + "/clones/x", hers + "/../.host/trash/x",
                                  box + "/snapshots/x", box + "/exec/x"}) {
    EXPECT_NE(As(kEve, [&] { return mkdir(path.c_str(), 0700); }), 0) << path;
  }
  EXPECT_NE(
      As(kEve,
         [&] { return rename(hers.c_str(), (box + "/clones/hers").c_str()); }),
      0);
  EXPECT_EQ(Virsh({"list", "--all", "--name"}), "box\nhers");
  ASSERT_EQ(unlink((Host() / "disks/data").c_str()), 0);
}

}  // namespace
}  // namespace sbxfs
