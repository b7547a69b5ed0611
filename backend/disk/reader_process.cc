#include "backend/disk/reader_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <exception>
#include <utility>

#include "backend/disk/reader_server.h"
#include "backend/util/error.h"
#include "backend/util/spawn.h"

namespace sbxfs {
namespace {

constexpr char kCannotAsk[] = "Cannot read the disk";
// A disk that ends its reader does so again.
constexpr int kMostEnds = 5;

class FileOfProcess : public FileTree::Opened {
 public:
  FileOfProcess(std::shared_ptr<ReaderProcess> process, std::string path,
                uint64_t number)
      : process_(std::move(process)), path_(std::move(path)), number_(number) {}

  // Names on a disk that rests lead to where they led.
  FileFacts Look() override { return ProcessTree(process_).Look(path_); }
  std::string Read(uint64_t offset, size_t size) override {
    std::string bytes;
    while (bytes.size() < size) {
      const size_t wanted = std::min(size - bytes.size(), kMostRead);
      std::string part =
          process_->Ask(Say::kRead, WireWriter()
                                        .Number(number_)
                                        .Number(offset + bytes.size())
                                        .Number(wanted)
                                        .Bytes());
      part.resize(std::min(part.size(), wanted));
      bytes += part;
      if (part.size() < wanted) break;
    }
    return bytes;
  }

 private:
  const std::shared_ptr<ReaderProcess> process_;
  const std::string path_;
  const uint64_t number_;
};

}  // namespace

ReaderProcess::ReaderProcess(std::vector<ChainFile> files, ReadFileAt read,
                             Settings settings)
    : files_(std::move(files)),
      read_(std::move(read)),
      settings_(std::move(settings)) {}

ReaderProcess::~ReaderProcess() { End(); }

void ReaderProcess::Start() {
  if (ends_ >= kMostEnds) {
    throw Error(EIO,
                fmt::format("{}: what reads its file system ended {} times; "
                            "that may be damaged: start the sandbox to have it "
                            "checked",
                            kCannotAsk, ends_));
  }
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    throw Error(errno, fmt::format("{}: no socket for its reader", kCannotAsk));
  }
  socket_ = UniqueFd(ends[0]);
  // One that does not take what it wants keeps nobody.
  timeval patience{};
  patience.tv_sec = settings_.thinking.count() / 1000 + 1;
  setsockopt(ends[0], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  const UniqueFd theirs(ends[1]);
  const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  pid_ = Spawn(settings_.program, {kDiskReader},
               {{null.Get(), STDIN_FILENO},
                {null.Get(), STDOUT_FILENO},
                {null.Get(), STDERR_FILENO},
                {theirs.Get(), kDiskReaderSocket}});
  open_ = false;
}

void ReaderProcess::End() {
  socket_.Reset();
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    AwaitExit(std::exchange(pid_, -1));
  }
}

void ReaderProcess::Serve(const WireMessage& wanted,
                          std::exception_ptr& failure) {
  WireReader words(wanted.bytes);
  const uint64_t file = words.Number();
  const uint64_t offset = words.Number();
  const uint64_t size = words.Number();
  if (file >= files_.size() || size > kMostRead || offset > files_[file].size ||
      size > files_[file].size - offset) {
    throw Error(EIO, fmt::format("{}: its reader asks for what is not there",
                                 kCannotAsk));
  }
  std::string bytes;
  try {
    bytes = read_(file, offset, size);
  } catch (...) {
    failure = std::current_exception();
    SendMessage(socket_.Get(), Say::kNoBytes, "");
    return;
  }
  SendMessage(socket_.Get(), Say::kBytes, bytes);
}

WireMessage ReaderProcess::Exchange(Say say, std::string_view bytes,
                                    WireDeadline deadline,
                                    std::exception_ptr& failure) {
  SendMessage(socket_.Get(), say, bytes);
  for (;;) {
    WireMessage got = ReceiveMessage(
        socket_.Get(), std::min(deadline, std::chrono::steady_clock::now() +
                                              settings_.thinking));
    if (got.say == Say::kAnswer || got.say == Say::kError) return got;
    if (got.say != Say::kWant) {
      throw Error(EIO,
                  fmt::format("{}: its reader makes no sense", kCannotAsk));
    }
    Serve(got, failure);
  }
}

std::string ReaderProcess::Ask(Say say, std::string_view bytes) {
  const auto turn = turns_.Take("", kCannotAsk, settings_.asking);
  const WireDeadline deadline =
      std::chrono::steady_clock::now() + settings_.asking;
  std::exception_ptr failure;
  WireMessage got;
  try {
    if (pid_ < 0) Start();
    if (!open_) {
      got = Exchange(Say::kOpen, WireWriter().Files(files_).Bytes(), deadline,
                     failure);
      open_ = got.say == Say::kAnswer && !failure;
    }
    if (open_) got = Exchange(say, bytes, deadline, failure);
  } catch (...) {
    if (pid_ > 0) ++ends_;
    End();
    throw;
  }
  // What it makes of a lack of bytes is no news.
  if (failure) std::rethrow_exception(failure);
  if (got.say == Say::kAnswer) return std::move(got.bytes);
  WireReader words(got.bytes);
  const uint64_t number = words.Number();
  const std::string sentence = words.Text();
  constexpr uint64_t kMostErrno = 200;
  throw Error(number > 0 && number < kMostErrno && number != ENOTCONN &&
                      number != ENOSYS
                  ? static_cast<int>(number)
                  : EIO,
              sentence);
}

FileFacts ProcessTree::Look(const std::string& path) {
  const std::string answer =
      process_->Ask(Say::kLook, WireWriter().Text(path).Bytes());
  return WireReader(answer).Facts();
}

std::vector<FileTree::Entry> ProcessTree::List(const std::string& path) {
  const std::string answer =
      process_->Ask(Say::kList, WireWriter().Text(path).Bytes());
  std::vector<Entry> list;
  WireReader words(answer);
  while (!words.Empty()) {
    std::string name = words.Text();
    const FileFacts facts = words.Facts();
    // That it lies is what it is confined for.
    if (name.empty() || name == "." || name == ".." ||
        name.find('/') != name.npos || name.find('\0') != name.npos) {
      continue;
    }
    list.push_back({std::move(name), facts});
  }
  return list;
}

std::string ProcessTree::Target(const std::string& path) {
  const std::string answer =
      process_->Ask(Say::kTarget, WireWriter().Text(path).Bytes());
  std::string target = WireReader(answer).Text();
  constexpr size_t kLongest = 4095;
  target.resize(std::min({target.find('\0'), target.size(), kLongest}));
  return target;
}

FileSpace ProcessTree::Space(const std::string&) {
  return WireReader(process_->Ask(Say::kSpace, "")).Space();
}

std::unique_ptr<FileTree::Opened> ProcessTree::Open(const std::string& path,
                                                    int flags, mode_t) {
  if ((flags & O_ACCMODE) != O_RDONLY ||
      (flags & (O_CREAT | O_TRUNC | O_APPEND)) != 0) {
    FileTree::Set(path, {});
  }
  const std::string answer =
      process_->Ask(Say::kFind, WireWriter().Text(path).Bytes());
  return std::make_unique<FileOfProcess>(process_, path,
                                         WireReader(answer).Number());
}

}  // namespace sbxfs
