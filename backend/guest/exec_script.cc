#include "backend/guest/exec_script.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "backend/guest/boot.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

std::string Begin(const std::string& id) {
  return fmt::format("id={}\n{}", id, kExecScript);
}

std::string Running(const std::string& id, const JobWish& wish,
                    std::string_view function) {
  std::string script = Begin(id);
  script += fmt::format(
      "user={}\nhow={}\ncwd={}\nmost={}\ndeadline={}\n", ShellQuote(wish.user),
      wish.shell ? "shell" : "argv", ShellQuote(wish.cwd), JobOutput::kMost,
      wish.deadline ? fmt::to_string(wish.deadline->count()) : std::string());
  script += fmt::format("together={}\nVariables() {{\n  :\n",
                        wish.together ? "yes" : "no");
  for (const auto& variable : wish.env) {
    script += "  export " + ShellQuote(variable) + "\n";
  }
  script += "}\n" + std::string(function);
  for (const auto& word : wish.words) script += " " + ShellQuote(word);
  return script;
}

[[noreturn]] void FailNonsense() {
  throw Error(EPROTO,
              "Cannot tell how the job goes: the guest answers nonsense");
}

uint64_t NumberIn(std::string_view word) {
  const auto number = ParseNumber(word);
  if (!number) FailNonsense();
  return *number;
}

}  // namespace

std::string JobScript(const std::string& id, const JobWish& wish) {
  return Running(id, wish, "Job");
}

std::string DetachedJobScript(const std::string& id, const JobWish& wish,
                              bool asked) {
  return fmt::format("asked={}\n{}", asked ? "yes" : "no",
                     Running(id, wish, "Detached"));
}

std::string JobReportScript(const std::string& id, uint64_t out, uint64_t err,
                            int wait, uint64_t piece) {
  return Begin(id) +
         fmt::format("piece={}\nAwait {}\nReport {} {}", piece, wait, out, err);
}

std::string EndJobScript(const std::vector<std::string>& ids) {
  std::string script = Begin("") + "for id in";
  for (const auto& id : ids) script += " " + ShellQuote(id);
  return script + "; do\n  dir=$base/$id\n  End\ndone";
}

std::string AsRoot(const std::string& script) {
  return fmt::format(
      "s={}\n[ \"$(id -u)\" = 0 ] || exec sudo -n /bin/sh -c \"$s\"\n"
      "eval \"$s\"",
      ShellQuote(script));
}

JobReport ParseJobReport(std::string_view text, uint64_t out, uint64_t err,
                         uint64_t piece) {
  using Kind = JobReport::Kind;
  JobReport report;
  const size_t end = text.find('\n');
  if (end == std::string_view::npos) FailNonsense();
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end + 1);
  if (line == "gone") return report;
  constexpr std::string_view kRefused = "refused ";
  if (line.starts_with(kRefused)) {
    report.kind = Kind::kRefused;
    report.words = OneLine(line.substr(kRefused.size()));
    return report;
  }
  const auto words = Split(line, ' ');
  if (words.size() != 4) FailNonsense();
  if (words[0] == "runs" || words[0] == "lost") {
    report.kind = words[0] == "runs" ? Kind::kRuns : Kind::kLost;
  } else {
    report.kind = Kind::kEnded;
    const uint64_t status = NumberIn(words[0]);
    if (status > 255) FailNonsense();
    report.status = static_cast<int>(status);
  }
  for (const auto note : Split(words[1], ',')) {
    report.late |= note == "late";
    report.out_cut |= note == "out";
    report.err_cut |= note == "err";
  }
  report.out_size = NumberIn(words[2]);
  report.err_size = NumberIn(words[3]);
  const auto take = [&text, piece](uint64_t size, uint64_t offset) {
    const uint64_t length = size > offset ? std::min(size - offset, piece) : 0;
    if (text.size() < length) FailNonsense();
    std::string bytes(text.substr(0, length));
    text.remove_prefix(length);
    return bytes;
  };
  report.out = take(report.out_size, out);
  report.err = take(report.err_size, err);
  if (!text.empty()) FailNonsense();
  return report;
}

}  // namespace sbxfs
