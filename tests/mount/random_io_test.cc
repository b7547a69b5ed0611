#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <random>
#include <sstream>

#include "tests/support/mounted.h"
#include "tests/support/wrapper.h"

// Random calls on a text, in the manner of fsx: what each comes to is compared
// with a model in memory. SBXFS_SEED repeats a run that failed.

namespace sbxfs {
namespace {

constexpr size_t kLongestText = 1 << 20;

// What kind of file it is, and what makes a text of it that is refused.
struct Kind {
  // Each open file has a text of its own, stored when it is closed or synced;
  // else one of the mount's memory, as on any file system.
  bool document = true;
  // A program that has read an older text is refused.
  bool watches_readers = true;
  // It is shown with a newline at its end, written or not.
  bool of_lines = false;
  // Each text is a volume of its own.
  bool stores_slowly = false;
};

// One open(2) of the model.
struct Opened {
  UniqueFd fd;
  int flags = 0;
  std::shared_ptr<std::string> text;
  bool pristine = true;  // nothing has changed `text` since
  bool written = false;
  bool dirty = false;
  int verdict = 0;
};

class RandomIo {
 public:
  RandomIo(std::filesystem::path path, Kind kind, unsigned seed)
      : path_(std::move(path)), kind_(kind), seed_(seed), random_(seed) {
    stored_ = std::make_shared<std::string>(ReadText(path_));
    if (kind_.document) seen_ = *stored_;
  }

  void Run(size_t steps) {
    for (size_t i = 0; i < steps && !failed_; ++i) Step();
    while (!opened_.empty() && !failed_) CloseOne();
    if (!failed_) CheckOutside();
    if (path_.string().ends_with("~")) Rename();
  }

 private:
  size_t Below(size_t limit) { return limit == 0 ? 0 : random_() % limit; }
  bool OneIn(size_t n) { return Below(n) == 0; }
  Opened& Any() { return opened_[Below(opened_.size())]; }
  static bool Writes(const Opened& one) {
    return (one.flags & O_ACCMODE) != O_RDONLY;
  }
  static bool Reads(const Opened& one) {
    return (one.flags & O_ACCMODE) != O_WRONLY;
  }

  void Note(const std::string& what) {
    history_.push_back(what);
    if (history_.size() > 40) history_.pop_front();
  }
  void Fail(const std::string& what) {
    failed_ = true;
    std::string text;
    for (const auto& line : history_) text += "  " + line + '\n';
    ADD_FAILURE() << path_ << ": " << what << "\nSBXFS_SEED=" << seed_ << '\n'
                  << text;
  }
  template <typename T>
  void Expect(T got, T wanted, const char* what) {
    if (got == wanted || failed_) return;
    std::ostringstream text;
    text << what << " is " << got << ", not " << wanted;
    Fail(text.str());
  }
  void ExpectCall(long result, int error, const char* what) {
    Expect(result < 0 ? errno : 0, error, what);
  }
  void ExpectBytes(const std::string& got, const std::string& wanted,
                   const char* what) {
    if (got == wanted || failed_) return;
    const auto at =
        std::mismatch(got.begin(), got.end(), wanted.begin(), wanted.end())
            .first -
        got.begin();
    Fail(std::string(what) + " gives " + std::to_string(got.size()) +
         " bytes, not " + std::to_string(wanted.size()) + ", or others from " +
         std::to_string(at) + " on");
  }

  // Any text of these is acceptable: one comment, or several.
  std::string Bytes(size_t offset) {
    std::string bytes(1 + Below(OneIn(50) ? 70000 : 300), '#');
    if (lines_) {
      for (char& c : bytes) c = "#\n #"[Below(4)];
    } else {
      for (char& c : bytes) c = static_cast<char>('!' + Below(94));
      if (offset == 0) bytes[0] = '#';
    }
    return bytes;
  }

  void Step() {
    if (opened_.empty() || (opened_.size() < 4 && OneIn(8))) {
      OpenOne();
      return;
    }
    switch (Below(20)) {
      case 0:
      case 1:
      case 2:
      case 3:
        Read();
        break;
      case 4:
      case 5:
      case 6:
      case 7:
        Write(false);
        break;
      case 8:
        Write(true);
        break;
      case 9:
      case 10:
        Truncate();
        break;
      case 11:
        TruncatePath();
        break;
      case 12:
        Seek();
        break;
      case 13:
        Flush(fsync(At(Any())), "fsync");
        break;
      case 14:
        ToggleAppend();
        break;
      case 15:
        Map();
        break;
      case 16:
        CheckOutside();
        break;
      case 17:
        kind_.document ? CloseACopy() : Replace();
        break;
      default:
        CloseOne();
    }
  }

  int At(Opened& one) {
    at_ = &one;
    return one.fd.Get();
  }

  void OpenOne() {
    Opened one;
    one.flags = static_cast<int>(Below(3));
    if (OneIn(3)) one.flags |= O_APPEND;
    if (OneIn(4) && Writes(one)) one.flags |= O_TRUNC;
    // Where it begins anew the alphabet may, too: no text is of both.
    if (OneIn(3)) one.flags |= O_CREAT;
    Note("open " + std::to_string(one.flags));
    one.fd = UniqueFd(open(path_.c_str(), one.flags | O_CLOEXEC, 0600));
    ExpectCall(one.fd.Get(), 0, "open");
    const bool cut = (one.flags & O_TRUNC) != 0;
    if (kind_.document) {
      one.text = std::make_shared<std::string>(cut ? "" : *stored_);
      one.pristine = !cut;
    } else {
      one.text = stored_;
      if (cut) one.text->clear();
    }
    opened_.push_back(std::move(one));
  }

  void Read() {
    Opened& one = Any();
    const size_t offset = Below(one.text->size() + 50);
    std::string got(1 + Below(OneIn(20) ? 100000 : 2000), '\0');
    Note("read " + std::to_string(offset) + " +" + std::to_string(got.size()));
    const ssize_t count =
        pread(one.fd.Get(), got.data(), got.size(), static_cast<off_t>(offset));
    ExpectCall(count, Reads(one) ? 0 : EBADF, "read");
    if (count < 0) return;
    ExpectBytes(got.substr(0, static_cast<size_t>(count)),
                offset < one.text->size() ? one.text->substr(offset, got.size())
                                          : std::string(),
                "read");
    if (offset == 0) Saw(one);
  }

  void Saw(const Opened& one) {
    if (one.pristine) seen_ = *one.text;
  }

  // At the position of the open file, or at an offset.
  void Write(bool here) {
    Opened& one = Any();
    const bool append = (one.flags & O_APPEND) != 0;
    size_t offset = Below(one.text->size() + (OneIn(8) ? 200 : 1));
    if (OneIn(300)) offset = kLongestText - Below(300);
    if (here) {
      lseek(one.fd.Get(), static_cast<off_t>(offset), SEEK_SET);
    }
    const size_t where = append ? one.text->size() : offset;
    std::string bytes = Bytes(where);
    Note(std::string("write") + (append ? " append " : " ") +
         std::to_string(where) + " +" + std::to_string(bytes.size()));
    const size_t half = bytes.size() / 2;
    const iovec parts[] = {{bytes.data(), half},
                           {bytes.data() + half, bytes.size() - half}};
    const ssize_t count =
        here ? write(one.fd.Get(), bytes.data(), bytes.size())
             : pwritev(one.fd.Get(), parts, 2, static_cast<off_t>(offset));
    const bool long_one = where + bytes.size() > kLongestText;
    ExpectCall(count, !Writes(one) ? EBADF : long_one ? E2BIG : 0, "write");
    if (count < 0) return;
    Expect(static_cast<size_t>(count), bytes.size(), "write");
    std::string& text = *one.text;
    text.resize(std::max(text.size(), where + bytes.size()));
    text.replace(where, bytes.size(), bytes);
    one.dirty = one.written = true;
    one.pristine = false;
    one.verdict = 0;
    if (here && !append) {
      Expect(lseek(one.fd.Get(), 0, SEEK_CUR),
             static_cast<off_t>(where + bytes.size()), "position");
    }
  }

  void Truncate() {
    Opened& one = Any();
    const size_t size = NewSize(*one.text);
    Note("ftruncate " + std::to_string(size));
    const int result = ftruncate(one.fd.Get(), static_cast<off_t>(size));
    ExpectCall(result,
               !Writes(one)          ? EINVAL
               : size > kLongestText ? E2BIG
                                     : 0,
               "ftruncate");
    if (result < 0) return;
    // What an open file has written it goes on with; else it changes nothing.
    if (one.written && size != one.text->size()) {
      one.dirty = true;
      one.verdict = 0;
    }
    one.text->resize(size);
    one.pristine = false;
  }

  size_t NewSize(const std::string& text) {
    if (OneIn(100)) return kLongestText + 1;
    return OneIn(3) ? Below(text.size() + 100) : Below(text.size() + 1);
  }

  void TruncatePath() {
    const size_t size = NewSize(*stored_);
    Note("truncate " + std::to_string(size));
    const bool long_one = !kind_.document && size > kLongestText;
    ExpectCall(truncate(path_.c_str(), static_cast<off_t>(size)),
               long_one ? E2BIG : 0, "truncate");
    if (!kind_.document && !long_one) stored_->resize(size);
  }

  void Seek() {
    Opened& one = Any();
    const auto size = static_cast<off_t>(one.text->size());
    const auto at = static_cast<off_t>(Below(one.text->size() + 20));
    Note("lseek " + std::to_string(at));
    Expect(lseek(one.fd.Get(), -at, SEEK_END), at > size ? -1 : size - at,
           "SEEK_END");
    Expect(lseek(one.fd.Get(), at, SEEK_DATA), at < size ? at : -1,
           "SEEK_DATA");
    Expect(lseek(one.fd.Get(), at, SEEK_HOLE), at < size ? size : -1,
           "SEEK_HOLE");
    Expect(lseek(one.fd.Get(), at, SEEK_SET), at, "SEEK_SET");
  }

  // fsync, or a close of one copy, of At's: stores what is staged.
  void Flush(int result, const char* what) {
    Opened& one = *at_;
    Note(what);
    ExpectCall(result, kind_.document && Writes(one) ? Stored(one) : 0, what);
  }

  int Stored(Opened& one) {
    if (one.verdict != 0 || !one.dirty) return one.verdict;
    one.dirty = false;
    if (kind_.watches_readers && seen_ && *seen_ != *stored_) {
      return one.verdict = ESTALE;
    }
    // A hole is no text; nor is one whose first line has lost its '#'.
    if (!Acceptable(*one.text)) return one.verdict = EINVAL;
    stored_ = std::make_shared<std::string>(*one.text);
    if (kind_.of_lines && !stored_->empty() && stored_->back() != '\n') {
      *stored_ += '\n';
    }
    seen_ = *stored_;
    return 0;
  }

  static bool Acceptable(const std::string& text) {
    if (text.find('\0') != std::string::npos) return false;
    for (size_t at = 0; at < text.size();) {
      const size_t first = text.find_first_not_of(" \n", at);
      if (first == std::string::npos) return true;
      if (text[first] != '#') return false;
      const size_t end = text.find('\n', first);
      if (end == std::string::npos) return true;
      at = end + 1;
    }
    return true;
  }

  void ToggleAppend() {
    Opened& one = Any();
    one.flags ^= O_APPEND;
    Note("fcntl O_APPEND");
    ExpectCall(fcntl(one.fd.Get(), F_SETFL, one.flags & O_APPEND), 0, "fcntl");
  }

  // Only a private mapping: nobody tells the pages of a shared one when the
  // text changes.
  void Map() {
    Opened& one = Any();
    Note("mmap");
    struct stat stat {};
    fstat(one.fd.Get(), &stat);
    const size_t size =
        std::min(static_cast<size_t>(stat.st_size), one.text->size());
    if (size == 0) return;
    void* pages = mmap(nullptr, size, PROT_READ, MAP_SHARED, one.fd.Get(), 0);
    ExpectCall(pages == MAP_FAILED ? -1 : 0, Reads(one) ? ENODEV : EACCES,
               "shared mmap");
    pages = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, one.fd.Get(), 0);
    ExpectCall(pages == MAP_FAILED ? -1 : 0, Reads(one) ? 0 : EACCES, "mmap");
    if (pages == MAP_FAILED) return;
    ExpectBytes(std::string(static_cast<const char*>(pages), size),
                one.text->substr(0, size), "mmap");
    munmap(pages, size);
    Saw(one);
  }

  // What somebody else sees who opens it now.
  void CheckOutside() {
    Note("look");
    struct stat stat {};
    Expect(lstat(path_.c_str(), &stat), 0, "stat");
    Expect(static_cast<size_t>(stat.st_size), stored_->size(), "st_size");
    if (opened_.empty() || OneIn(4)) {
      ExpectBytes(RunProgram({"cat", path_.string()}).out, *stored_, "cat");
    }
    // One of another process closes its copies, which changes nothing.
    if (OneIn(4)) {
      const pid_t child = fork();
      if (child == 0) {
        for (const auto& one : opened_) close(one.fd.Get());
        _exit(0);
      }
      waitpid(child, nullptr, 0);
    }
  }

  void CloseACopy() {
    const int copy = dup(At(Any()));
    Flush(close(copy), "close of a copy");
  }

  // A file of the mount's memory is the same under another name, and goes on
  // for those who have it open when it has none.
  void Replace() {
    if (OneIn(3)) {
      Note("unlink");
      ExpectCall(unlink(path_.c_str()), 0, "unlink");
      const UniqueFd made(
          open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
      ExpectCall(made.Get(), 0, "creat");
      stored_ = std::make_shared<std::string>();
      return;
    }
    Rename();
  }

  void Rename() {
    const std::filesystem::path other =
        path_.string().ends_with("~")
            ? path_.string().substr(0, path_.string().size() - 1)
            : path_.string() + "~";
    Note("rename");
    ExpectCall(rename(path_.c_str(), other.c_str()), 0, "rename");
    path_ = other;
  }

  void CloseOne() {
    const size_t which = Below(opened_.size());
    Opened& one = opened_[which];
    At(one);
    const int fd = one.fd.Release();
    Flush(close(fd), "close");
    opened_.erase(opened_.begin() + static_cast<ptrdiff_t>(which));
  }

  std::filesystem::path path_;
  const Kind kind_;
  const unsigned seed_;
  std::mt19937 random_;
  const bool lines_ = seed_ % 2 == 1;
  std::shared_ptr<std::string> stored_;
  std::optional<std::string> seen_;  // what this process has read last
  std::vector<Opened> opened_;
  Opened* at_ = nullptr;
  std::deque<std::string> history_;
  bool failed_ = false;
};

// Several sequences, each with a seed of its own.
void RunRandomIo(const std::filesystem::path& path, Kind kind) {
  const char* const given = std::getenv("SBXFS_SEED");
  if (given != nullptr) {
    RandomIo(path, kind, static_cast<unsigned>(std::stoul(given))).Run(20000);
    return;
  }
  std::random_device device;
  int sequences = (LongRun() ? 40 : 4) / (kind.stores_slowly ? 2 : 1);
  size_t steps = LongRun() ? 5000 : 500;
  if (IsWrapped()) {
    sequences = 1;
    steps = 200;
  }
  for (int i = 0; i < sequences; ++i) {
    RandomIo(path, kind, device()).Run(steps);
    if (testing::Test::HasFailure()) return;
  }
}

class RandomCalls : public Mounted {};

TEST_F(RandomCalls, OnASandboxesConfiguration) {
  Do("mkdir box; echo '#' > box/config.yaml");
  RunRandomIo(Dir() / "box/config.yaml", {});
  EXPECT_EQ(Do("ls -A"), ".host\nbox\n");
}

TEST_F(RandomCalls, OnASandboxesKeys) {
  Do("mkdir box; echo '#' > box/authorized_keys");
  RunRandomIo(Dir() / "box/authorized_keys", {.of_lines = true});
}

TEST_F(RandomCalls, OnAScratchFile) {
  Do("mkdir box; : > box/.config.yaml.swp");
  RunRandomIo(Dir() / "box/.config.yaml.swp", {.document = false});
  EXPECT_EQ(Do("rm box/.config.yaml.swp; ls -A box | grep swp || true"), "");
}

// Documents that a hypervisor's pool keeps.
class RandomCallsOnTheHost : public BlankGuests {
 protected:
  void TearDown() override {
    if (mount_ != nullptr) ForgetOverride();
    BlankGuests::TearDown();
  }
};

TEST_F(RandomCallsOnTheHost, OnWhatOverridesAll) {
  WriteText(Host() / "override.yaml", "#\n");
  RunRandomIo(Host() / "override.yaml", {.stores_slowly = true});
}

TEST_F(RandomCallsOnTheHost, OnATemplate) {
  const auto path = Host() / "templates/one.yaml";
  const UniqueFd made(open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  ASSERT_EQ(write(made.Get(), "#\n", 2), 2);
  ASSERT_EQ(fsync(made.Get()), 0);
  RunRandomIo(path, {.watches_readers = false, .stores_slowly = true});
  EXPECT_EQ(unlink(path.c_str()), 0);
}

}  // namespace
}  // namespace sbxfs
