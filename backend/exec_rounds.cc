#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "backend/exec.h"
#include "backend/guest/boot.h"
#include "backend/guest_shell.h"
#include "backend/util/log.h"
#include "backend/util/text.h"

// How jobs are begun in their guests, and asked after.

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// A guest that answers nobody for so long has lost its jobs.
constexpr auto kSilence = 60s;

// An answer costs the guest something: soon at first, seldom later.
std::chrono::milliseconds Pause(std::chrono::steady_clock::duration age) {
  const auto part =
      std::chrono::duration_cast<std::chrono::milliseconds>(age / 8);
  return std::clamp(part, std::chrono::milliseconds(4),
                    std::chrono::milliseconds(500));
}

void Extend(JobOutput& output, uint64_t size, const std::string& piece,
            uint64_t offset) {
  output.size = std::max(output.size, size);
  const size_t has = output.head->size();
  if (piece.empty() || offset != has || has >= JobOutput::kHead) return;
  auto head = *output.head + piece.substr(0, JobOutput::kHead - has);
  output.head = std::make_shared<const std::string>(std::move(head));
}

uint64_t Wanted(const JobOutput& output) {
  const size_t has = output.head->size();
  return has < JobOutput::kHead ? has : kNoJobPiece;
}

std::string ReasonOf(const Job& job, const JobReport& report) {
  std::string reason =
      report.status > 128
          ? fmt::format("ended by signal {}, or with exit code {}",
                        report.status - 128, report.status)
          : fmt::format("ended with exit code {}", report.status);
  if (report.late) {
    reason += fmt::format("; its deadline of {} s had passed",
                          job.wish.deadline.value_or(0s).count());
  }
  const std::pair<const char*, const JobOutput&> kStreams[] = {
      {"stdout", job.out}, {"stderr", job.err}};
  for (const auto& [name, output] : kStreams) {
    if (output.cut) {
      reason +=
          fmt::format("; {} was cut at {}", name, FormatSize(output.size));
    }
  }
  return reason;
}

}  // namespace

void Exec::Begin(const std::string& id) {
  const JobPtr job = Get(id);
  if (job == nullptr) return;
  try {
    bool agent = true;
    {
      MutexLock lock(mutex_);
      const auto found = agentless_.find(job->uuid);
      agent = found == agentless_.end() || found->second < Clock::now();
    }
    std::string why = "was silent before";
    if (agent) {
      try {
        const Turns::Turn turn =
            core_.turns.Take("agent " + job->uuid, "begin a job", 60s);
        const int64_t pid = BeginByAgent(
            core_, job->uuid, JobScript(id, job->wish), job->wish.input);
        Began(id, pid, false);
        return;
      } catch (const Error& error) {
        why = error.Sentence();
      }
    }
    BeginBySsh(*job, why, agent);
  } catch (const Error& error) {
    Fail(id, error);
    Change(id, [&](Job& changed) {
      changed.state = JobState::kNew;
      changed.reason = OneLine(error.Sentence());
    });
  }
}

void Exec::BeginBySsh(const Job& job, const std::string& agent, bool asked) {
  JobReport report;
  try {
    report = ParseJobReport(
        RunBySshAsRoot(core_, job.uuid,
                       DetachedJobScript(job.id, job.wish, asked),
                       job.wish.input, 60s)
            .output,
        0, 0);
  } catch (const Error& error) {
    throw Error(EHOSTDOWN,
                fmt::format("{}: the guest answers neither by its agent ({}) "
                            "nor by ssh ({}); see whether ready says yes",
                            What(job), agent, error.Sentence()));
  }
  {
    MutexLock lock(mutex_);
    agentless_[job.uuid] = Clock::now() + 30s;
  }
  Began(job.id, std::nullopt, true);
  Take(job.id, report, job);
}

void Exec::Began(const std::string& id, std::optional<int64_t> pid,
                 bool by_ssh) {
  std::string uuid;
  {
    MutexLock lock(mutex_);
    const auto found = entries_.find(id);
    if (found != entries_.end()) {
      Entry& entry = found->second;
      entry.begun = true;
      entry.pid = pid;
      entry.by_ssh = by_ssh;
      entry.since = Clock::now();
      entry.due = entry.since + Pause(0s);
      uuid = entry.job->uuid;
    }
  }
  if (uuid.empty()) return;
  Change(id, [](Job& job) { job.reason = "it runs"; });
  PlanRound(uuid);
}

std::optional<Exec::Clock::time_point> Exec::NextRound(
    const std::string& uuid) {
  std::optional<Clock::time_point> next;
  for (const auto& [id, entry] : entries_) {
    if (!entry.begun || entry.job->uuid != uuid) continue;
    if (!next || entry.due < *next) next = entry.due;
  }
  return next;
}

void Exec::PlanRound(const std::string& uuid) {
  Clock::duration pause;
  {
    MutexLock lock(mutex_);
    if (rounds_.contains(uuid)) return;
    const auto next = NextRound(uuid);
    if (!next) return;
    rounds_.insert(uuid);
    pause = std::max(*next - Clock::now(), Clock::duration(0));
  }
  core_.timer.After(
      std::chrono::ceil<std::chrono::milliseconds>(pause),
      [this, uuid] { core_.workers.Run([this, uuid] { Round(uuid); }); });
}

void Exec::Round(const std::string& uuid) {
  std::vector<std::string> due;
  {
    MutexLock lock(mutex_);
    const auto now = Clock::now();
    for (auto& [id, entry] : entries_) {
      if (!entry.begun || entry.job->uuid != uuid || entry.due > now) continue;
      due.push_back(id);
    }
  }
  for (const auto& id : due) Ask(id);
  {
    MutexLock lock(mutex_);
    rounds_.erase(uuid);
  }
  PlanRound(uuid);
}

void Exec::Ask(const std::string& id) {
  Entry entry;
  {
    MutexLock lock(mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end() || !found->second.begun) return;
    entry = found->second;
  }
  const SandboxPtr sandbox = core_.catalog.Get(entry.job->uuid);
  const bool runs = sandbox != nullptr && (sandbox->state == State::kRunning ||
                                           sandbox->state == State::kStarting);
  if (runs) {
    try {
      AskNow(*entry.job, entry);
    } catch (const Error& error) {
      Silent(id, error);
    }
  }
  MutexLock lock(mutex_);
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  const auto now = Clock::now();
  found->second.due = now + (runs ? Pause(now - entry.since) : 1000ms);
}

void Exec::AskNow(const Job& job, const Entry& entry) {
  bool report = !entry.pid.has_value();
  if (entry.pid) {
    try {
      std::optional<ShellResult> result;
      {
        const Turns::Turn turn =
            core_.turns.Take("agent " + job.uuid, "ask after a job", 60s);
        result = EndedByAgent(core_, job.uuid, *entry.pid);
      }
      if (result) {
        Take(job.id, ParseJobReport(result->output, 0, 0), Job());
        return;
      }
    } catch (const Error& error) {
      // An agent that was started anew knows it no more.
      spdlog::debug("{}", error.Sentence());
      report = true;
    }
  }
  const auto quiet = Clock::now() - entry.reported;
  if (report || (entry.watchers > 0 && quiet > 250ms)) {
    const JobReport told = Report(job, entry.by_ssh, entry.by_ssh ? 5 : 0);
    // It may not have come to its first line yet.
    const bool young = Clock::now() - entry.since < 10s;
    if (told.kind != JobReport::Kind::kGone || (report && !young)) {
      Take(job.id, told, job);
    }
  }
}

std::string Exec::InGuest(const std::string& uuid, bool by_ssh,
                          const std::string& script) {
  constexpr auto kAnswer = 20s;
  return (by_ssh ? RunBySshAsRoot(core_, uuid, script, "", kAnswer)
                 : RunInGuest(core_, uuid, AsRoot(script), "", kAnswer))
      .output;
}

JobReport Exec::Report(const Job& job, bool by_ssh, int wait) {
  const uint64_t out = Wanted(job.out);
  const uint64_t err = Wanted(job.err);
  const std::string script = JobReportScript(job.id, out, err, wait);
  return ParseJobReport(InGuest(job.uuid, by_ssh, script), out, err);
}

void Exec::Take(const std::string& id, const JobReport& report,
                const Job& asked) {
  using Kind = JobReport::Kind;
  {
    MutexLock lock(mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end()) return;
    found->second.silent.reset();
    found->second.reported = Clock::now();
  }
  Change(id, [&](Job& job) {
    if (job.state != JobState::kRunning) return;
    Extend(job.out, report.out_size, report.out, Wanted(asked.out));
    Extend(job.err, report.err_size, report.err, Wanted(asked.err));
    job.out.cut = report.out_cut;
    job.err.cut = report.err_cut;
    switch (report.kind) {
      case Kind::kRuns:
        return;
      case Kind::kEnded:
        job.state = JobState::kEnded;
        job.exit_code = report.status;
        job.reason = ReasonOf(job, report);
        return;
      case Kind::kLost:
        job.state = JobState::kLost;
        job.reason = "what watched over it in the guest was killed";
        return;
      case Kind::kGone:
        job.state = JobState::kLost;
        job.reason = "the guest knows nothing of it; it was started anew";
        return;
      case Kind::kRefused:
        job.state = JobState::kNew;
        job.reason = report.words;
        return;
    }
  });
}

void Exec::Silent(const std::string& id, const Error& error) {
  spdlog::debug("{}", error.Sentence());
  bool lost = false;
  {
    MutexLock lock(mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end()) return;
    auto& silent = found->second.silent;
    if (!silent) silent = Clock::now();
    lost = Clock::now() - *silent > kSilence;
  }
  if (core_.catalog.GetHost()->connected) {
    if (!lost) return;
    Change(id, [&](Job& job) {
      job.state = JobState::kLost;
      job.reason = OneLine(error.Sentence());
    });
    return;
  }
  Fail(id, Error(EHOSTDOWN,
                 "Cannot wait for the job: libvirt cannot be "
                 "reached; it goes on, see its state later"));
}

}  // namespace sbxfs
