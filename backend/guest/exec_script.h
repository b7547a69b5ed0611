#ifndef SBXFS_BACKEND_GUEST_EXEC_SCRIPT_H_
#define SBXFS_BACKEND_GUEST_EXEC_SCRIPT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backend/jobs.h"

namespace sbxfs {

// What runs jobs in a guest: scripts for sh, made of exec.sh, and what they
// say. Pure functions.

// The text of exec.sh.
extern const char kExecScript[];

// A piece of a stream that a report brings, at most; and a long one.
constexpr uint64_t kJobPiece = 65536;
constexpr uint64_t kJobStretch = 1 << 20;
// The offset of none.
constexpr uint64_t kNoJobPiece = uint64_t{1} << 62;

// Runs it, reads its standard input, and reports in the end.
[[nodiscard]] std::string JobScript(const std::string& id, const JobWish& wish);
// The same, not tied to what began it: reports when it has ended or after some
// seconds. `asked`: the guest's agent was asked for the job before, and may
// have begun it or come to it later; it runs once.
[[nodiscard]] std::string DetachedJobScript(const std::string& id,
                                            const JobWish& wish, bool asked);
// How it goes, with what its streams have from there on; after `wait` seconds,
// unless it ends before.
[[nodiscard]] std::string JobReportScript(const std::string& id, uint64_t out,
                                          uint64_t err, int wait = 0,
                                          uint64_t piece = kJobPiece);
// Ends all of them, and leaves nothing.
[[nodiscard]] std::string EndJobScript(const std::vector<std::string>& ids);
// A script becomes one that makes itself root.
[[nodiscard]] std::string AsRoot(const std::string& script);

struct JobReport {
  // kGone: the guest knows nothing of it; kLost: it was killed from outside.
  enum class Kind { kRuns, kEnded, kLost, kGone, kRefused };
  Kind kind = Kind::kGone;
  int status = 0;     // kEnded
  std::string words;  // kRefused: why
  bool late = false;  // its deadline has passed
  bool out_cut = false, err_cut = false;
  uint64_t out_size = 0, err_size = 0;
  std::string out, err;  // the pieces asked for
};
// `out` and `err` are the offsets asked for. Throws Error(EPROTO).
[[nodiscard]] JobReport ParseJobReport(std::string_view text, uint64_t out,
                                       uint64_t err,
                                       uint64_t piece = kJobPiece);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_GUEST_EXEC_SCRIPT_H_
