#include "backend/disk/reader_server.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>

#include "backend/disk/confine.h"
#include "backend/disk/disk_reader.h"
#include "backend/disk/reader_wire.h"
#include "backend/util/error.h"

namespace sbxfs {
namespace {

constexpr WireDeadline kNever = WireDeadline::max();

std::string FetchOver(int fd, size_t file, uint64_t offset, size_t size) {
  SendMessage(fd, Say::kWant,
              WireWriter().Number(file).Number(offset).Number(size).Bytes());
  WireMessage got = ReceiveMessage(fd, kNever);
  // The daemon knows why, and nobody here takes it for damage.
  if (got.say != Say::kBytes) {
    throw Error(EHOSTDOWN, "Cannot read the disk: its bytes are out of reach");
  }
  return std::move(got.bytes);
}

std::string AnswerTo(int fd, const WireMessage& asked,
                     std::unique_ptr<DiskReader>& reader) {
  WireReader words(asked.bytes);
  WireWriter answer;
  if (asked.say == Say::kOpen) {
    reader.reset();
    reader = std::make_unique<DiskReader>(
        words.Files(), [fd](size_t file, uint64_t offset, size_t size) {
          return FetchOver(fd, file, offset, size);
        });
    return answer.Bytes();
  }
  if (!reader) throw Error(EIO, "Cannot read the disk: it is not open");
  ExtFiles& files = reader->Files();
  switch (asked.say) {
    case Say::kLook:
      return answer.Facts(files.Look(words.Text())).Bytes();
    case Say::kList:
      for (const auto& [name, facts] : files.List(words.Text())) {
        answer.Text(name).Facts(facts);
      }
      return answer.Bytes();
    case Say::kTarget:
      return answer.Text(files.Target(words.Text())).Bytes();
    case Say::kSpace:
      return answer.Space(files.Space()).Bytes();
    case Say::kFind:
      return answer.Number(files.Find(words.Text())).Bytes();
    case Say::kRead: {
      const uint64_t number = words.Number();
      const uint64_t offset = words.Number();
      return files.Read(number, offset,
                        std::min<uint64_t>(words.Number(), kMostRead));
    }
    default:
      throw Error(EIO, "Cannot read the disk: the question makes no sense");
  }
}

}  // namespace

void ServeDisk(int fd) {
  std::unique_ptr<DiskReader> reader;
  for (;;) {
    WireMessage asked;
    try {
      asked = ReceiveMessage(fd, kNever);
    } catch (const Error&) {
      return;  // nobody asks any more
    }
    try {
      SendMessage(fd, Say::kAnswer, AnswerTo(fd, asked, reader));
    } catch (...) {
      const Error error = CurrentError();
      SendMessage(fd, Say::kError,
                  WireWriter()
                      .Number(static_cast<uint64_t>(error.Errno()))
                      .Text(error.Sentence())
                      .Bytes());
    }
  }
}

int RunDiskReader() {
  try {
    prctl(PR_SET_NAME, kDiskReader);
    close_range(kDiskReaderSocket + 1, ~0U, 0);
    try {
      Confine();
    } catch (const Error& error) {
      // To the first question.
      (void)ReceiveMessage(kDiskReaderSocket, kNever);
      SendMessage(kDiskReaderSocket, Say::kError,
                  WireWriter()
                      .Number(static_cast<uint64_t>(error.Errno()))
                      .Text(error.Sentence())
                      .Bytes());
      return 1;
    }
    ServeDisk(kDiskReaderSocket);
    // Without the ends of libraries, which may call what is not allowed.
    _exit(0);
  } catch (const std::exception&) {
    return 1;
  }
}

}  // namespace sbxfs
