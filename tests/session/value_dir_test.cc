#include "fs/tree/value_dir.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>

#include "backend/util/timer.h"
#include "tests/support/fake_backend.h"

// A collection's directory: entries come by their first line, go by unlink.

namespace sbxfs {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// What a call answered; the fake answers before it returns.
template <typename T>
struct Heard {
  int error = -1;
  std::string sentence;
  T value{};
};

template <typename T, typename F>
Heard<T> Hear(F&& call) {
  auto heard = std::make_shared<Heard<T>>();
  const Reply<T> reply([heard](Outcome<T> outcome) {
    if (const auto* error = std::get_if<Error>(&outcome)) {
      *heard = {error->Errno(), error->Sentence(), {}};
    } else {
      *heard = {0, "", std::move(std::get<T>(outcome))};
    }
  });
  reply.Guard([&] { call(reply); });
  return *heard;
}

class ValueDirTest : public testing::Test {
 protected:
  std::shared_ptr<ValueDir> At(const Row& row) {
    return std::make_shared<ValueDir>(tree_, row, uuid_);
  }
  int Create(Dir& dir, const std::string& name, int flags = O_WRONLY) {
    const auto made = Hear<Made>(
        [&](const auto& reply) { dir.Create(caller_, name, flags, reply); });
    open_ = made.value.file;
    return made.error;
  }
  int Open(Dir& dir, const std::string& name, int flags) {
    const auto file =
        std::dynamic_pointer_cast<File>(dir.Lookup(caller_, name));
    if (!file) return ENOENT;
    const auto heard = Hear<OpenFilePtr>(
        [&](const auto& reply) { file->Open(caller_, flags, reply); });
    open_ = heard.value;
    return heard.error;
  }
  int Write(const std::string& text) {
    const auto heard = Hear<Done>([&](const auto& reply) {
      open_->Write(caller_, 0, text, O_WRONLY, reply);
    });
    sentence_ = heard.sentence;
    return heard.error;
  }
  int Close() {
    open_->Release();
    open_.reset();
    return 0;
  }
  int Echo(Dir& dir, const std::string& name, const std::string& text) {
    int error = dir.Lookup(caller_, name) ? Open(dir, name, O_WRONLY | O_TRUNC)
                                          : Create(dir, name);
    if (error != 0) return error;
    error = Write(text + '\n');
    Close();
    return error;
  }
  std::string Cat(Dir& dir, const std::string& name) {
    EXPECT_EQ(Open(dir, name, O_RDONLY), 0);
    const auto heard = Hear<std::string>(
        [&](const auto& reply) { open_->Read(caller_, 0, 4096, reply); });
    EXPECT_EQ(dir.Lookup(caller_, name)->Stat(caller_).st_size,
              static_cast<off_t>(heard.value.size()));
    Close();
    return heard.value;
  }
  int Unlink(Dir& dir, const std::string& name) {
    return Hear<Done>(
               [&](const auto& reply) { dir.Unlink(caller_, name, reply); })
        .error;
  }
  int Rename(Dir& dir, const std::string& name, const std::string& new_name) {
    return Hear<Done>([&](const auto& reply) {
             dir.Rename(caller_, name, dir, new_name, reply);
           })
        .error;
  }
  std::vector<std::string> Ls(Dir& dir) {
    std::vector<std::string> names;
    for (const auto& entry : dir.List(caller_)) names.push_back(entry.name);
    return names;
  }

  const Row ports_row_{DirKind::kSandbox, "ports",        0777,
                       Form::kDirectory,  nullptr,        nullptr,
                       Clock::kConfig,    "a port a file"};
  const Row secrets_row_{DirKind::kSandbox, "secrets",        0700,
                         Form::kDirectory,  nullptr,          nullptr,
                         Clock::kConfig,    "a secret a file"};
  const Caller caller_{1000, 1000, getpid()};
  FakeBackend backend_;
  const std::string uuid_ = backend_.Add("box");
  Timer timer_;
  const TreePtr tree_ = std::make_shared<Tree>(
      backend_, TreeOptions{}, timer_, [](const std::string&) {},
      [](const std::string&) {});
  const std::shared_ptr<ValueDir> ports_ = At(ports_row_);
  const std::shared_ptr<ValueDir> secrets_ = At(secrets_row_);
  OpenFilePtr open_;
  std::string sentence_;
};

TEST_F(ValueDirTest, TheFirstLineMakesTheEntry) {
  EXPECT_THAT(Ls(*ports_), ElementsAre());
  ASSERT_EQ(Create(*ports_, "3000"), 0);
  EXPECT_THAT(Ls(*ports_), ElementsAre("3000"));
  const std::string key = ports_->Lookup(caller_, "3000")->key;
  EXPECT_TRUE(backend_.Get(uuid_)->ports.empty());
  EXPECT_EQ(Write("8080\n"), 0);
  EXPECT_EQ(backend_.Get(uuid_)->ports.at("3000"), "8080");
  Close();
  EXPECT_EQ(Cat(*ports_, "3000"), "8080\n");
  EXPECT_EQ(ports_->Lookup(caller_, "3000")->key, key);
  EXPECT_EQ(Echo(*ports_, "3000", "8081"), 0);
  EXPECT_EQ(Cat(*ports_, "3000"), "8081\n");
}

TEST_F(ValueDirTest, NeverWrittenItVanishes) {
  ASSERT_EQ(Create(*ports_, "3000"), 0);
  Close();
  EXPECT_THAT(Ls(*ports_), ElementsAre());
  EXPECT_EQ(Echo(*ports_, "3000", "bad"), EINVAL);
  EXPECT_THAT(sentence_, HasSubstr("is no value"));
  EXPECT_THAT(Ls(*ports_), ElementsAre());
  EXPECT_EQ(Echo(*ports_, "3000", ""), EINVAL);
  EXPECT_EQ(Echo(*ports_, "3000", "80\n81"), EINVAL);
  EXPECT_EQ(Echo(*ports_, "3000", "none"), 0);
  EXPECT_THAT(backend_.Calls(), ElementsAre("item box ports 3000 bad"));
}

TEST_F(ValueDirTest, UnlinkAndNoneRemove) {
  EXPECT_EQ(Echo(*ports_, "3000", "8080"), 0);
  EXPECT_EQ(Echo(*ports_, "4000", "8081"), 0);
  EXPECT_EQ(Unlink(*ports_, "3000"), 0);
  EXPECT_EQ(Echo(*ports_, "4000", "none"), 0);
  EXPECT_THAT(Ls(*ports_), ElementsAre());
  EXPECT_EQ(Unlink(*ports_, "3000"), ENOENT);
  EXPECT_TRUE(backend_.Get(uuid_)->ports.empty());
}

TEST_F(ValueDirTest, RmRTakesNothing) {
  EXPECT_EQ(Echo(*ports_, "3000", "8080"), 0);
  tree_->refusals.Set(uuid_ + '/', getpid());
  EXPECT_EQ(Unlink(*ports_, "3000"), EPERM);
  EXPECT_EQ(Cat(*ports_, "3000"), "8080\n");
}

TEST_F(ValueDirTest, SecretsOnlyExist) {
  EXPECT_EQ(Echo(*secrets_, "TOKEN", "hush"), 0);
  const auto stat = secrets_->Lookup(caller_, "TOKEN")->Stat(caller_);
  EXPECT_EQ(stat.st_mode, S_IFREG | 0200u);
  EXPECT_EQ(stat.st_size, 0);
  EXPECT_EQ(Open(*secrets_, "TOKEN", O_RDONLY), EACCES);
  EXPECT_EQ(Open(*secrets_, "TOKEN", O_RDWR), EACCES);
  EXPECT_EQ(Rename(*secrets_, "TOKEN", "OTHER"), EPERM);
  EXPECT_THAT(Ls(*secrets_), ElementsAre("TOKEN"));
  EXPECT_EQ(Unlink(*secrets_, "TOKEN"), 0);
  EXPECT_TRUE(backend_.Get(uuid_)->secrets.empty());
}

TEST_F(ValueDirTest, RenameFreesWhatTheNewEntryTakes) {
  EXPECT_EQ(Echo(*ports_, "3000", "8080"), 0);
  EXPECT_EQ(Rename(*ports_, "3000", "4000"), 0);
  EXPECT_THAT(backend_.Calls(),
              ElementsAre("item box ports 3000 8080", "item box ports 3000 ",
                          "item box ports 4000 8080"));
  EXPECT_THAT(Ls(*ports_), ElementsAre("4000"));
  EXPECT_EQ(Rename(*ports_, "3000", "5000"), ENOENT);
}

TEST_F(ValueDirTest, ARefusedRenameBringsTheOldEntryBack) {
  backend_.Update(uuid_, [](Sandbox& one) { one.ports["3000"] = "bad"; });
  EXPECT_EQ(Rename(*ports_, "3000", "4000"), EINVAL);
  EXPECT_THAT(backend_.Calls(),
              ElementsAre("item box ports 3000 ", "item box ports 4000 bad",
                          "item box ports 3000 bad"));
}

TEST_F(ValueDirTest, AScratchFileRenamedOntoAnEntryIsOneWrite) {
  EXPECT_EQ(Echo(*ports_, "3000", "8080"), 0);
  ASSERT_EQ(Create(*ports_, "sedAbCdEf", O_RDWR | O_EXCL), 0);
  EXPECT_EQ(Write("8081\n"), 0);
  Close();
  EXPECT_THAT(Ls(*ports_), Contains("sedAbCdEf"));
  EXPECT_EQ(Rename(*ports_, "sedAbCdEf", "3000"), 0);
  EXPECT_EQ(Cat(*ports_, "3000"), "8081\n");
  ASSERT_EQ(Create(*ports_, "4000.tmp.1234"), 0);
  EXPECT_EQ(Write("8082\n"), 0);
  Close();
  EXPECT_EQ(Rename(*ports_, "4000.tmp.1234", "4000"), 0);
  EXPECT_THAT(Ls(*ports_), ElementsAre("3000", "4000"));
  EXPECT_THAT(backend_.Calls(), Not(Contains(HasSubstr("tmp"))));
}

TEST_F(ValueDirTest, VimsWay) {
  EXPECT_EQ(Echo(*ports_, "3000", "8080"), 0);
  EXPECT_EQ(Rename(*ports_, "3000", "3000~"), 0);
  EXPECT_EQ(ports_->Lookup(caller_, "3000"), nullptr);
  EXPECT_EQ(Cat(*ports_, "3000~"), "8080\n");
  EXPECT_EQ(backend_.Get(uuid_)->ports.at("3000"), "8080");
  ASSERT_EQ(Create(*ports_, "3000"), 0);
  EXPECT_EQ(Write("8081\n"), 0);
  Close();
  EXPECT_EQ(Unlink(*ports_, "3000~"), 0);
  EXPECT_EQ(Cat(*ports_, "3000"), "8081\n");
}

TEST_F(ValueDirTest, TheTrashIsReadOnly) {
  EXPECT_EQ(Echo(*ports_, "3000", "8080"), 0);
  backend_.Update(uuid_, [](Sandbox& one) { one.trashed = one.created; });
  EXPECT_EQ(Cat(*ports_, "3000"), "8080\n");
  EXPECT_EQ(Open(*ports_, "3000", O_WRONLY), EACCES);
  EXPECT_EQ(Create(*ports_, "4000"), EACCES);
  EXPECT_EQ(Unlink(*ports_, "3000"), EACCES);
  EXPECT_EQ(Rename(*ports_, "3000", "4000"), EACCES);
}

TEST_F(ValueDirTest, ModesFollowTheSandbox) {
  EXPECT_EQ(Echo(*ports_, "3000", "8080"), 0);
  backend_.Update(uuid_, [](Sandbox& one) { one.mode = 0750; });
  EXPECT_EQ(ports_->Stat(caller_).st_mode, S_IFDIR | 0750u);
  EXPECT_EQ(ports_->Lookup(caller_, "3000")->Stat(caller_).st_mode,
            S_IFREG | 0640u);
  EXPECT_EQ(secrets_->Stat(caller_).st_mode, S_IFDIR | 0700u);
}

}  // namespace
}  // namespace sbxfs
