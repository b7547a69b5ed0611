#include "backend/guest/sftp_files.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <future>
#include <sstream>

#include "tests/support/own_sshd.h"

// The files of this machine, by an OpenSSH of the test's own.

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
using testing::UnorderedElementsAre;

class SftpFilesTest : public OwnSshd {
 protected:
  void SetUp() override {
    OwnSshd::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    std::filesystem::create_directory(dir_ / "files");
    files_ = std::make_shared<SftpFiles>([this](const auto& given_up) {
      ++connections_;
      return std::make_unique<SftpClient>(Target(), 20s, given_up);
    });
  }
  // As SFTP names it.
  [[nodiscard]] std::string At(const std::string& name) const {
    return (dir_ / "files" / name).string().substr(1);
  }
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(dir_ / "files" / name) << text;
  }
  [[nodiscard]] std::string Text(const std::string& name) const {
    std::ostringstream text;
    text << std::ifstream(dir_ / "files" / name).rdbuf();
    return text.str();
  }
  template <typename F>
  static int Failing(F&& work) {
    try {
      work();
      return 0;
    } catch (const Error& error) {
      return error.Errno();
    }
  }

  int connections_ = 0;
  std::shared_ptr<SftpFiles> files_;
};

TEST_F(SftpFilesTest, AreLookedAtAndListed) {
  Write("a", "12345");
  symlink("/etc/motd", ('/' + At("link")).c_str());
  mkdir(('/' + At("dir")).c_str(), 0700);
  const FileFacts facts = files_->Look(At("a"));
  EXPECT_EQ(facts.size, 5U);
  EXPECT_TRUE(S_ISREG(facts.mode));
  EXPECT_EQ(facts.uid, getuid());
  EXPECT_TRUE(facts.own);
  EXPECT_TRUE(facts.own_group);
  EXPECT_TRUE(S_ISLNK(files_->Look(At("link")).mode));
  EXPECT_EQ(files_->Target(At("link")), "/etc/motd");
  std::vector<std::string> names;
  for (const auto& entry : files_->List(At(""))) names.push_back(entry.name);
  EXPECT_THAT(names, UnorderedElementsAre("a", "link", "dir"));
  EXPECT_TRUE(S_ISDIR(files_->Look("").mode));
  struct statvfs here {};
  ASSERT_EQ(statvfs(('/' + At("a")).c_str(), &here), 0);
  const FileSpace space = files_->Space(At("a"));
  EXPECT_EQ(space.block, here.f_frsize);
  EXPECT_EQ(space.blocks, here.f_blocks);
  EXPECT_EQ(space.files, here.f_files);
  EXPECT_LE(space.available, space.free);
  EXPECT_EQ(Failing([&] { (void)files_->Space(At("none")); }), ENOENT);
  EXPECT_EQ(Failing([&] { (void)files_->Look(At("none")); }), ENOENT);
  // What OpenSSH says of it; the kernel asks no such thing.
  EXPECT_EQ(Failing([&] { (void)files_->List(At("a")); }), ENOENT);
  EXPECT_EQ(connections_, 1);
}

TEST_F(SftpFilesTest, AreWrittenAndRead) {
  const auto file = files_->Open(At("new"), O_RDWR | O_CREAT | O_EXCL, 0600);
  std::string text(300000, 'x');
  for (size_t i = 0; i < text.size(); i += 7) text[i] = static_cast<char>(i);
  file->Write(0, text);
  file->Write(10, "HERE");
  text.replace(10, 4, "HERE");
  file->Sync();
  EXPECT_TRUE(Text("new") == text);
  EXPECT_EQ(file->Look().size, text.size());
  EXPECT_TRUE(file->Read(0, 1 << 20) == text);
  EXPECT_EQ(file->Read(text.size(), 100), "");
  EXPECT_EQ(file->Read(text.size() - 3, 100), text.substr(text.size() - 3));
  // On and on, in odd pieces; and what was just written in between.
  std::string all;
  for (size_t at = 0, size = 1; at < text.size(); at += size, size = 70001) {
    if (at > 100000 && text[250000] != '!') {
      file->Write(250000, "!");
      text[250000] = '!';
    }
    all += file->Read(at, size);
  }
  EXPECT_TRUE(all == text);
  file->Resize(5);
  EXPECT_EQ(file->Read(0, 100), text.substr(0, 5));
  EXPECT_EQ(Failing([&] {
              (void)files_->Open(At("new"), O_RDWR | O_CREAT | O_EXCL, 0600);
            }),
            EEXIST);
  const auto end = files_->Open(At("new"), O_WRONLY | O_APPEND, 0);
  end->Write(0, "end");
  EXPECT_EQ(Text("new"), text.substr(0, 5) + "end");
  EXPECT_FALSE(files_->Idle());
}

TEST_F(SftpFilesTest, AReaderThatReadsOnSeesWhatCame) {
  Write("log", std::string(200000, 'a'));
  const auto file = files_->Open(At("log"), O_RDONLY, 0);
  uint64_t at = 0;
  while (true) {
    const std::string got = file->Read(at, 65536);
    if (got.empty()) break;
    at += got.size();
  }
  EXPECT_EQ(at, 200000U);
  std::ofstream(dir_ / "files/log", std::ios::app) << "more";
  EXPECT_EQ(file->Read(at, 65536), "more");
}

TEST_F(SftpFilesTest, AreMadeRenamedSetAndRemoved) {
  files_->MakeDir(At("dir"), 0750);
  EXPECT_EQ(Failing([&] { files_->MakeDir(At("dir"), 0750); }), EEXIST);
  Write("dir/a", "a");
  Write("b", "b");
  EXPECT_EQ(Failing([&] { files_->RemoveDir(At("dir")); }), ENOTEMPTY);
  files_->Rename(At("b"), At("dir/a"));
  EXPECT_EQ(Text("dir/a"), "b");
  files_->MakeName(At("dir/a"), At("second"));
  EXPECT_EQ(Text("second"), "b");
  files_->MakeLink(At("link"), "dir/a");
  EXPECT_EQ(files_->Target(At("link")), "dir/a");
  EXPECT_EQ(Failing([&] { files_->MakeLink(At("link"), "x"); }), EEXIST);
  FileChanges changes;
  changes.mode = 0640;
  changes.modified = std::chrono::system_clock::from_time_t(1000000000);
  files_->Set(At("dir/a"), changes);
  const FileFacts facts = files_->Look(At("dir/a"));
  EXPECT_EQ(facts.mode, S_IFREG | 0640U);
  EXPECT_EQ(facts.modified, *changes.modified);
  // Of a link it is the link's.
  changes.mode.reset();
  changes.modified = std::chrono::system_clock::from_time_t(1100000000);
  files_->Set(At("link"), changes);
  EXPECT_EQ(files_->Look(At("link")).modified, *changes.modified);
  EXPECT_NE(files_->Look(At("dir/a")).modified, *changes.modified);
  files_->Remove(At("dir/a"));
  files_->RemoveDir(At("dir"));
  EXPECT_EQ(Failing([&] { files_->Remove(At("dir")); }), ENOENT);
}

TEST_F(SftpFilesTest, ALostConnectionIsMadeAnew) {
  Write("a", "one");
  const auto file = files_->Open(At("a"), O_RDWR, 0);
  EXPECT_EQ(file->Read(0, 10), "one");
  Signal(SIGKILL);
  EXPECT_EQ(file->Read(0, 10), "one");
  EXPECT_EQ(connections_, 2);
  Signal(SIGKILL);
  file->Write(0, "two");
  EXPECT_EQ(Text("a"), "two");
  EXPECT_EQ(connections_, 3);
  files_->End();
  EXPECT_EQ(Failing([&] { (void)file->Read(0, 10); }), EHOSTDOWN);
  EXPECT_EQ(connections_, 3);
}

TEST_F(SftpFilesTest, OneThatHangsIsLeft) {
  (void)files_->Look(At(""));
  Signal(SIGSTOP);
  auto asked = std::async(std::launch::async, [&] {
    return Failing([&] { (void)files_->Look(At("")); });
  });
  EXPECT_EQ(asked.wait_for(300ms), std::future_status::timeout);
  files_->End();
  ASSERT_EQ(asked.wait_for(5s), std::future_status::ready);
  EXPECT_NE(asked.get(), 0);
  Signal(SIGKILL);
}

TEST_F(SftpFilesTest, AThousandNames) {
  for (int i = 0; i < 1000; ++i) Write("f" + std::to_string(i), "");
  EXPECT_EQ(files_->List(At("")).size(), 1000U);
}

TEST(SftpIn, BelievesNothing) {
  const std::string text = SftpOut().Text("abc").Bytes();
  EXPECT_EQ(SftpIn(text).Text(), "abc");
  for (size_t i = 0; i < text.size(); ++i) {
    EXPECT_THROW(SftpIn(text.substr(0, i)).Text(), Error);
  }
  // Attributes of its own kind, more than there are.
  const SftpOut more = std::move(SftpOut().U32(0x80000000).U32(0xffffffff));
  EXPECT_THROW(SftpIn(more.Bytes()).Attributes(), Error);
}

}  // namespace
}  // namespace sbxfs
