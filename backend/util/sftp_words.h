#ifndef SBXFS_BACKEND_UTIL_SFTP_WORDS_H_
#define SBXFS_BACKEND_UTIL_SFTP_WORDS_H_

#include <cstdint>

// The numbers of SFTP's version 3 (draft-ietf-secsh-filexfer-02), for the side
// that serves mounts and the one that asks guests.

namespace sbxfs::sftp {

enum Type : uint8_t {
  kInit = 1,
  kVersion = 2,
  kOpen = 3,
  kClose = 4,
  kRead = 5,
  kWrite = 6,
  kLstat = 7,
  kFstat = 8,
  kSetstat = 9,
  kFsetstat = 10,
  kOpendir = 11,
  kReaddir = 12,
  kRemove = 13,
  kMkdir = 14,
  kRmdir = 15,
  kRealpath = 16,
  kStat = 17,
  kRename = 18,
  kReadlink = 19,
  kSymlink = 20,
  kStatus = 101,
  kHandle = 102,
  kData = 103,
  kName = 104,
  kAttrs = 105,
  kExtended = 200,
  kExtendedReply = 201
};

// The codes of a kStatus.
enum Status : uint32_t {
  kOk = 0,
  kEof = 1,
  kNoSuchFile = 2,
  kPermissionDenied = 3,
  kFailure = 4,
  kUnsupported = 8
};

// Which fields a file's attributes have.
enum Attribute : uint32_t {
  kHasSize = 1,
  kHasOwner = 2,
  kHasMode = 4,
  kHasTimes = 8,
  kHasExtended = 0x80000000
};

// Of a kOpen.
enum OpenFlag : uint32_t {
  kFlagRead = 1,
  kFlagWrite = 2,
  kFlagAppend = 4,
  kFlagCreate = 8,
  kFlagTruncate = 16,
  kFlagExclusive = 32
};

}  // namespace sbxfs::sftp

#endif  // SBXFS_BACKEND_UTIL_SFTP_WORDS_H_
