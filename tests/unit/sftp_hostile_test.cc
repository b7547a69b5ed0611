#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>

#include "backend/guest/sftp_files.h"
#include "tests/support/own_sshd.h"

// A guest whose sftp server means no good, which its root may put there.

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// What it does is told by the name that it is asked for.
constexpr char kHostileServer[] = R"py(
import os, struct, sys

def take(size):
    data = b''
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            sys.exit()
        data += more
    return data

def put(data):
    while data:
        data = data[os.write(1, data):]

def say(kind, number, body):
    put(struct.pack('>IBI', len(body) + 5, kind, number) + body)

take(struct.unpack('>I', take(4))[0])
put(struct.pack('>IBI', 5, 2, 3))
entry = struct.pack('>I', 200) + b'n' * 200 + struct.pack('>II', 0, 0)
while True:
    packet = take(struct.unpack('>I', take(4))[0])
    kind, number = struct.unpack('>BI', packet[:5])
    name = packet[9:] if kind in (7, 11, 19) else b''
    if name == b'/endless':
        say(102, number, struct.pack('>I', 1) + b'h')
    elif kind == 12:
        say(104, number, struct.pack('>I', 1000) + entry * 1000)
    elif name == b'/none':
        say(102, number, struct.pack('>I', 1) + b'z')
    elif name == b'/flood':
        while True:
            say(101, 12345678, b'x' * 200000)
    elif name == b'/nonsense':
        put(b'\xff' * 1000)
    elif name == b'/huge':
        put(struct.pack('>IBI', 0x7fffffff, 105, number))
    elif name == b'/short':
        say(105, number, struct.pack('>I', 0xf))
    elif name == b'/more':
        say(105, number, struct.pack('>II', 0x80000000, 0xffffffff))
    elif name == b'/target':
        say(104, number, struct.pack('>II', 1, 0xfffffff0) + b'x')
    else:
        say(101, number, struct.pack('>I', 4))
)py";

class HostileSftpTest : public OwnSshd {
 protected:
  void SetUp() override {
    std::ofstream(script_) << kHostileServer;
    sftp_ = "/usr/bin/python3 " + script_;
    OwnSshd::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    files_ = std::make_shared<SftpFiles>([this](const auto& given_up) {
      return std::make_unique<SftpClient>(Target(), 20s, given_up);
    });
  }
  void TearDown() override {
    files_.reset();
    OwnSshd::TearDown();
    std::filesystem::remove(script_);
  }
  template <typename F>
  static int ErrnoOf(F&& work) {
    try {
      work();
      return 0;
    } catch (const Error& error) {
      EXPECT_FALSE(error.Sentence().empty());
      return error.Errno();
    }
  }
  int Looking(const char* name) {
    return ErrnoOf([&] { (void)files_->Look(name); });
  }
  // Of this process, in MiB.
  static long Resident() {
    long pages = 0;
    std::ifstream("/proc/self/statm") >> pages >> pages;
    return pages * sysconf(_SC_PAGESIZE) / (1 << 20);
  }

  const std::string script_ =
      testing::TempDir() + "/sbxfs-hostile." + std::to_string(getpid());
  std::shared_ptr<SftpFiles> files_;
};

TEST_F(HostileSftpTest, NonsenseIsAnError) {
  for (const char* name : {"nonsense", "huge", "short", "more"}) {
    EXPECT_EQ(Looking(name), EPROTO) << name;
  }
  EXPECT_EQ(ErrnoOf([&] { (void)files_->Target("target"); }), EPROTO);
  // It is asked anew after that.
  EXPECT_EQ(Looking("other"), EIO);
}

TEST_F(HostileSftpTest, ADirectoryHasAnEnd) {
  const long before = Resident();
  EXPECT_EQ(ErrnoOf([&] { (void)files_->List("endless"); }), EFBIG);
  EXPECT_LT(Resident() - before, 500);
}

TEST_F(HostileSftpTest, WhoNeverComesToTheAnswerIsNotWaitedFor) {
  const long before = Resident();
  EXPECT_EQ(Looking("flood"), ETIMEDOUT);
  // AddressSanitizer keeps 256 MiB of what was freed.
  EXPECT_LT(Resident() - before, 500);
}

}  // namespace
}  // namespace sbxfs
