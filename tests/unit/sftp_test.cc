// The server of reverse sshfs, spoken to as a guest would that is not to be
// trusted.
#include "backend/mount/sftp.h"

#include <endian.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>
#include <thread>

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

constexpr uint8_t kOpen = 3, kClose = 4, kRead = 5, kWrite = 6, kLstat = 7,
                  kSetstat = 9, kOpendir = 11, kReaddir = 12, kRemove = 13,
                  kMkdir = 14, kRmdir = 15, kRealpath = 16, kStat = 17,
                  kRename = 18, kReadlink = 19, kSymlink = 20, kExtended = 200;
constexpr uint8_t kStatus = 101, kHandle = 102, kData = 103, kName = 104,
                  kAttrs = 105;
constexpr uint32_t kOk = 0, kEof = 1, kNoSuchFile = 2, kPermissionDenied = 3,
                   kFailure = 4, kUnsupported = 8;

// A request's or a reply's bytes.
class Bytes {
 public:
  Bytes& U8(uint8_t value) {
    text += static_cast<char>(value);
    return *this;
  }
  Bytes& U32(uint32_t value) {
    value = htobe32(value);
    text.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Bytes& U64(uint64_t value) {
    value = htobe64(value);
    text.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Bytes& String(std::string_view value) {
    U32(static_cast<uint32_t>(value.size()));
    text += value;
    return *this;
  }
  uint32_t TakeU32() {
    uint32_t value = 0;
    std::memcpy(&value, text.substr(0, 4).data(), 4);
    text.erase(0, 4);
    return be32toh(value);
  }
  uint64_t TakeU64() {
    const uint64_t high = TakeU32();
    return high << 32 | TakeU32();
  }
  std::string TakeString() {
    const uint32_t size = TakeU32();
    std::string value = text.substr(0, size);
    text.erase(0, size);
    return value;
  }
  std::string text;
};

struct SeenFile {
  uint64_t size;
  uint32_t uid, gid, mode;
};

class SftpTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/sbxfs-sftp.XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    top_ = name;
    root_ = top_ / "root";
    stdfs::create_directories(root_ / "dir");
    Put(top_ / "secret", "secret");
    chmod((top_ / "secret").c_str(), 0600);
    Put(root_ / "file", "hello");
    Put(root_ / "dir/inner", "inner");
    Serve(true);
  }
  void TearDown() override {
    server_.reset();  // which may hold as many files as a user may open
    stdfs::remove_all(top_);
  }

  void Serve(bool writable) {
    UniqueFd fd(open(root_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(fd.Valid());
    server_ = std::make_unique<SftpServer>(
        Jail(std::move(fd), writable),
        Ownership{getuid(), {getgid()}, 1234, 5678});
  }
  static void Put(const stdfs::path& path, std::string_view text) {
    std::ofstream(path) << text;
  }
  static std::string Get(const stdfs::path& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }

  // The reply's type, and what follows its id in `reply_`.
  uint8_t Ask(uint8_t type, const Bytes& rest) {
    Bytes request;
    request.U8(type).U32(77);
    request.text += rest.text;
    reply_.text = server_->Answer(request.text);
    const auto answer = static_cast<uint8_t>(reply_.text.at(0));
    reply_.text.erase(0, 1);
    EXPECT_EQ(reply_.TakeU32(), 77U);
    return answer;
  }
  // The status that is all of the reply.
  uint32_t StatusOf(uint8_t type, const Bytes& rest) {
    const uint8_t answer = Ask(type, rest);
    EXPECT_EQ(answer, kStatus);
    return answer == kStatus ? reply_.TakeU32() : 999;
  }
  uint32_t OpenStatus(std::string_view path, uint32_t flags) {
    return StatusOf(kOpen, Bytes().String(path).U32(flags).U32(0));
  }
  std::string OpenHandle(std::string_view path, uint32_t flags,
                         uint32_t mode = 0644) {
    EXPECT_EQ(Ask(kOpen, Bytes().String(path).U32(flags).U32(4).U32(mode)),
              kHandle);
    return reply_.TakeString();
  }
  std::string ReadFile(std::string_view path) {
    const std::string handle = OpenHandle(path, 1);
    EXPECT_EQ(Ask(kRead, Bytes().String(handle).U64(0).U32(1000)), kData);
    std::string data = reply_.TakeString();
    EXPECT_EQ(StatusOf(kRead, Bytes().String(handle).U64(1000).U32(9)), kEof);
    EXPECT_EQ(StatusOf(kClose, Bytes().String(handle)), kOk);
    EXPECT_EQ(StatusOf(kClose, Bytes().String(handle)), kNoSuchFile);
    return data;
  }
  SeenFile StatFile(std::string_view path, uint8_t type = kLstat) {
    EXPECT_EQ(Ask(type, Bytes().String(path)), kAttrs);
    EXPECT_EQ(reply_.TakeU32(), 15U);
    SeenFile seen{};
    seen.size = reply_.TakeU64();
    seen.uid = reply_.TakeU32();
    seen.gid = reply_.TakeU32();
    seen.mode = reply_.TakeU32();
    return seen;
  }
  static Bytes Mode(std::string_view path, uint32_t mode) {
    return Bytes().String(path).U32(4).U32(mode);
  }
  static mode_t ModeOf(const stdfs::path& path) {
    struct stat status {};
    lstat(path.c_str(), &status);
    return status.st_mode & 07777;
  }

  stdfs::path top_, root_;
  std::unique_ptr<SftpServer> server_;
  Bytes reply_;
};

TEST_F(SftpTest, SpeaksVersion3) {
  reply_.text = server_->Answer(Bytes().U8(1).U32(6).text);
  EXPECT_EQ(reply_.text.at(0), 2);
  reply_.text.erase(0, 1);
  EXPECT_EQ(reply_.TakeU32(), 3U);
  EXPECT_EQ(reply_.TakeString(), "posix-rename@openssh.com");
}

TEST_F(SftpTest, ReadsWritesAndMakes) {
  EXPECT_EQ(ReadFile("/file"), "hello");
  EXPECT_EQ(ReadFile("dir/inner"), "inner");
  const std::string handle = OpenHandle("/new", 2 | 8 | 32, 0640);
  EXPECT_EQ(StatusOf(kWrite, Bytes().String(handle).U64(2).String("xy")), kOk);
  EXPECT_EQ(Get(root_ / "new"), std::string("\0\0xy", 4));
  EXPECT_EQ(OpenStatus("/new", 2 | 8 | 32), kFailure);  // it exists
  EXPECT_EQ(StatusOf(kMkdir, Mode("/sub/", 0750)), kOk);
  EXPECT_EQ(ModeOf(root_ / "sub"), 0750U);
  EXPECT_EQ(StatusOf(kRename, Bytes().String("/new").String("/sub/n")), kOk);
  EXPECT_EQ(StatusOf(kRename, Bytes().String("/sub/n").String("/file")),
            kFailure);
  EXPECT_EQ(StatusOf(kExtended, Bytes()
                                    .String("posix-rename@openssh.com")
                                    .String("/sub/n")
                                    .String("/file")),
            kOk);
  EXPECT_EQ(ReadFile("/file"), std::string("\0\0xy", 4));
  EXPECT_EQ(StatusOf(kExtended, Bytes()
                                    .String("hardlink@openssh.com")
                                    .String("/file")
                                    .String("/sub/hard")),
            kOk);
  EXPECT_EQ(StatusOf(kRmdir, Bytes().String("/sub")), kFailure);
  EXPECT_EQ(StatusOf(kRemove, Bytes().String("/sub/hard")), kOk);
  EXPECT_EQ(StatusOf(kRmdir, Bytes().String("/sub")), kOk);
  EXPECT_EQ(StatusOf(kSetstat, Bytes().String("/file").U32(1).U64(1)), kOk);
  EXPECT_EQ(stdfs::file_size(root_ / "file"), 1U);
  EXPECT_EQ(StatusOf(kSetstat, Bytes().String("/file").U32(8).U32(5).U32(6)),
            kOk);
  struct stat status {};
  stat((root_ / "file").c_str(), &status);
  EXPECT_EQ(status.st_mtim.tv_sec, 6);
}

TEST_F(SftpTest, OwnersAreTheGuests) {
  const SeenFile seen = StatFile("/file");
  EXPECT_EQ(seen.size, 5U);
  EXPECT_EQ(seen.uid, 1234U);
  EXPECT_EQ(seen.gid, 5678U);
  auto owner = [](uint32_t uid, uint32_t gid) {
    return Bytes().String("/file").U32(2).U32(uid).U32(gid);
  };
  EXPECT_EQ(StatusOf(kSetstat, owner(1234, 5678)), kOk);
  EXPECT_EQ(StatusOf(kSetstat, owner(1234, ~0U)), kOk);
  EXPECT_EQ(StatusOf(kSetstat, owner(0, ~0U)), kPermissionDenied);
  if (getuid() != 0) GTEST_SKIP() << "needs root for another's file";
  ASSERT_EQ(chown((root_ / "file").c_str(), 77, 78), 0);
  EXPECT_EQ(StatFile("/file").uid, 65534U);
  EXPECT_EQ(StatFile("/file").gid, 65534U);
}

TEST_F(SftpTest, ListsWithoutWhatLiesAbove) {
  ASSERT_EQ(Ask(kOpendir, Bytes().String("/")), kHandle);
  const std::string handle = reply_.TakeString();
  ASSERT_EQ(Ask(kReaddir, Bytes().String(handle)), kName);
  std::set<std::string> names;
  for (uint32_t count = reply_.TakeU32(); count > 0; --count) {
    names.insert(reply_.TakeString());
    (void)reply_.TakeString();
    reply_.text.erase(0, 32);
  }
  EXPECT_EQ(names, (std::set<std::string>{"dir", "file"}));
  EXPECT_EQ(StatusOf(kReaddir, Bytes().String(handle)), kEof);
}

// The kernel cannot tell then where ".." leads, and wants to be asked again.
TEST_F(SftpTest, RenamesBesideItFailNothing) {
  std::atomic<bool> done = false;
  std::thread renames([&] {
    const stdfs::path one = top_ / "one";
    const stdfs::path other = top_ / "other";
    stdfs::create_directory(one);
    while (!done) {
      stdfs::rename(one, other);
      stdfs::rename(other, one);
    }
  });
  int failed = 0;
  for (int i = 0; i < 5000; ++i) {
    failed +=
        StatusOf(kStat, Bytes().String("dir/../../x")) != kPermissionDenied;
    failed += Ask(kStat, Bytes().String("dir/../file")) != kAttrs;
  }
  done = true;
  renames.join();
  EXPECT_EQ(failed, 0);
}

TEST_F(SftpTest, NoWayLeadsOut) {
  const std::string secret = (top_ / "secret").string();
  stdfs::create_symlink(secret, root_ / "absolute");
  stdfs::create_symlink("../secret", root_ / "relative");
  stdfs::create_directory_symlink("..", root_ / "up");
  stdfs::create_symlink("/proc/self/root", root_ / "magic");
  for (const std::string path : {"../secret", "/../secret", "dir/../../secret",
                                 "absolute", "relative", "up/secret"}) {
    EXPECT_EQ(OpenStatus(path, 1), kPermissionDenied) << path;
    EXPECT_EQ(OpenStatus(path, 2 | 16), kPermissionDenied) << path;
    EXPECT_EQ(StatusOf(kStat, Bytes().String(path)), kPermissionDenied) << path;
    // What Landlock alone would let through.
    EXPECT_EQ(StatusOf(kSetstat, Mode(path, 0777)), kPermissionDenied) << path;
    EXPECT_EQ(StatusOf(kSetstat, Bytes().String(path).U32(8).U32(0).U32(0)),
              kPermissionDenied)
        << path;
  }
  for (const std::string path : {"..", "/..", "up", "magic", "/../"}) {
    EXPECT_EQ(StatusOf(kOpendir, Bytes().String(path)), kPermissionDenied)
        << path;
  }
  for (const std::string path : {"../new", "up/new", "dir/../../new"}) {
    EXPECT_EQ(OpenStatus(path, 2 | 8), kPermissionDenied) << path;
    EXPECT_EQ(StatusOf(kMkdir, Mode(path, 0755)), kPermissionDenied) << path;
    EXPECT_EQ(StatusOf(kRename, Bytes().String("file").String(path)),
              kPermissionDenied)
        << path;
    EXPECT_EQ(StatusOf(kSymlink, Bytes().String("x").String(path)),
              kPermissionDenied)
        << path;
  }
  EXPECT_EQ(StatusOf(kRemove, Bytes().String("up/secret")), kPermissionDenied);
  EXPECT_EQ(StatusOf(kRename, Bytes().String("up/secret").String("mine")),
            kPermissionDenied);
  EXPECT_EQ(StatusOf(kExtended, Bytes()
                                    .String("hardlink@openssh.com")
                                    .String("../secret")
                                    .String("mine")),
            kPermissionDenied);
  EXPECT_EQ(Get(top_ / "secret"), "secret");
  EXPECT_EQ(ModeOf(top_ / "secret"), 0600U);
  EXPECT_FALSE(stdfs::exists(top_ / "new"));
  // The link itself is the guest's to read, make and follow on its own side.
  EXPECT_EQ(Ask(kReadlink, Bytes().String("absolute")), kName);
  EXPECT_EQ(reply_.TakeU32(), 1U);
  EXPECT_EQ(reply_.TakeString(), secret);
  EXPECT_EQ(StatusOf(kSymlink, Bytes().String(secret).String("made")), kOk);
  EXPECT_EQ(stdfs::read_symlink(root_ / "made"), secret);
  EXPECT_EQ(Ask(kRealpath, Bytes().String("dir/../../x")), kName);
  EXPECT_EQ(reply_.TakeU32(), 1U);
  EXPECT_EQ(reply_.TakeString(), "/x");
}

TEST_F(SftpTest, ReadOnlyRefusesEveryChange) {
  Serve(false);
  EXPECT_EQ(ReadFile("/file"), "hello");
  for (const uint32_t flags : {2U, 3U, 1U | 16U, 2U | 8U, 1U | 8U}) {
    EXPECT_EQ(OpenStatus("/file", flags), kPermissionDenied) << flags;
  }
  EXPECT_EQ(StatusOf(kMkdir, Mode("/sub", 0755)), kPermissionDenied);
  EXPECT_EQ(StatusOf(kRemove, Bytes().String("/file")), kPermissionDenied);
  EXPECT_EQ(StatusOf(kRmdir, Bytes().String("/dir")), kPermissionDenied);
  EXPECT_EQ(StatusOf(kSetstat, Mode("/file", 0600)), kPermissionDenied);
  EXPECT_EQ(StatusOf(kSetstat, Bytes().String("/file").U32(1).U64(0)),
            kPermissionDenied);
  EXPECT_EQ(StatusOf(kRename, Bytes().String("/file").String("/f")),
            kPermissionDenied);
  EXPECT_EQ(StatusOf(kSymlink, Bytes().String("x").String("/y")),
            kPermissionDenied);
  EXPECT_EQ(Get(root_ / "file"), "hello");
}

TEST_F(SftpTest, NothingRunsOrHangsOnTheHost) {
  EXPECT_EQ(StatusOf(kSetstat, Mode("/file", 06755)), kOk);
  EXPECT_EQ(ModeOf(root_ / "file"), 0755U);
  (void)OpenHandle("/suid", 2 | 8, 04755);
  EXPECT_EQ(ModeOf(root_ / "suid") & 07000, 0U);
  ASSERT_EQ(mkfifo((root_ / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(OpenStatus("/fifo", 1), kPermissionDenied);
  EXPECT_EQ(OpenStatus("/dir", 1), kPermissionDenied);
}

TEST_F(SftpTest, LandlockIsASecondWall) {
  const pid_t child = fork();
  if (child == 0) {
    const UniqueFd root(open(root_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!ConfineByLandlock(root.Get())) _exit(2);
    const UniqueFd inside(open((root_ / "file").c_str(), O_RDWR | O_TRUNC));
    if (!inside.Valid()) _exit(3);
    if (rename((root_ / "file").c_str(), (root_ / "dir/f").c_str()) != 0) {
      _exit(4);
    }
    const UniqueFd outside(open((top_ / "secret").c_str(), O_RDONLY));
    _exit(outside.Valid() || errno != EACCES ? 5 : 0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  if (WEXITSTATUS(status) == 2) GTEST_SKIP() << "this kernel has no Landlock";
  EXPECT_EQ(status, 0);
}

TEST_F(SftpTest, NonsenseIsRefused) {
  EXPECT_EQ(StatusOf(99, Bytes()), kUnsupported);
  EXPECT_EQ(StatusOf(kExtended, Bytes().String("what@ever")), kUnsupported);
  EXPECT_EQ(StatusOf(kRead, Bytes().String("beef").U64(0).U32(1)), kNoSuchFile);
  EXPECT_EQ(OpenStatus(std::string_view("fi\0le", 5), 1), kFailure);
  EXPECT_EQ(StatusOf(kRemove, Bytes().String("/")), kFailure);
  EXPECT_EQ(StatusOf(kMkdir, Mode("/.", 0755)), kFailure);
  for (const Bytes& broken :
       {Bytes(), Bytes().U8(kOpen), Bytes().U8(kOpen).U32(1).U32(1000),
        Bytes().U8(kRename).U32(1).String("file").U32(~0U)}) {
    EXPECT_THROW((void)server_->Answer(broken.text), std::invalid_argument);
  }
  // Handles run out, the server does not.
  for (int i = 0; i < 4096; ++i) {
    if (Ask(kOpendir, Bytes().String("/")) == kStatus) return;
  }
  EXPECT_EQ(StatusOf(kOpendir, Bytes().String("/")), kFailure);
}

}  // namespace
}  // namespace sbxfs
