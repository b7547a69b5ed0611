// What a guest says, where root in it says whatever it likes: its report on
// its boot, its jobs, its logs; and what QEMU says of its network.
#include <limits>

#include "backend/forwards.h"
#include "backend/guest/boot.h"
#include "backend/guest/exec_script.h"
#include "backend/guest/seed.h"
#include "backend/user_network.h"
#include "backend/util/utf8.h"
#include "tests/fuzz/fuzz.h"

namespace sbxfs::fuzz {
namespace {

void CheckBoot(std::string_view text) {
  const BootReport report = ParseBootReport(text);
  if (report.uid) {
    Check(*report.uid <= std::numeric_limits<int>::max(), "a user's number");
  }
  for (const BootStep& step : report.begun) {
    Check(IsPlainLine(step.what), "a step's name is a plain line", step.what);
    Check(!step.sequence.empty() && step.sequence.find_first_not_of(
                                        "0123456789") == std::string::npos,
          "a step's number names a file", step.sequence);
  }
}

void CheckJob(std::string_view text, uint64_t out, uint64_t err,
              uint64_t piece) {
  (void)Try([&] {
    const JobReport report = ParseJobReport(text, out, err, piece);
    Check(report.out.size() <= piece && report.err.size() <= piece,
          "no more of a stream than asked for");
    Check(report.status >= 0 && report.status <= 255, "a job's status");
    Check(IsPlainLine(report.words), "a refusal is a plain line", report.words);
  });
}

}  // namespace
}  // namespace sbxfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sbxfs;
  const std::string text(fuzz::Text(data, size));
  fuzz::CheckBoot(text);
  fuzz::CheckJob(text, 0, 0, kJobPiece);
  fuzz::CheckJob(text, 3, kNoJobPiece, 5);
  fuzz::CheckJob(text, kNoJobPiece, kNoJobPiece, kJobStretch);
  for (const Forward& forward : ParseUsernet(text, kNetdev)) {
    fuzz::Check(forward.host_port >= 0 && forward.host_port <= 65535 &&
                    forward.guest_port >= 0 && forward.guest_port <= 65535,
                "ports that there are", text);
  }
  fuzz::Check(CountConnections(text, kNetdev) >= 0, "none or more", text);
  const std::string words = LastWords(text);
  fuzz::Check(IsPlainLine(words) && words.size() <= 310,
              "last words are one short line", words);
  (void)HostKeyOf(text);
  return 0;
}
