#include "backend/exec.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <random>

#include "backend/guest/boot.h"
#include "backend/guest_shell.h"
#include "backend/util/log.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// A variable of an environment has 128 KiB at most, and so has a word.
constexpr size_t kLongestScript = 120 << 10;
constexpr auto kAnswer = 20s;
// A guest that answers nobody for so long has lost its jobs.
constexpr auto kSilence = 60s;
// No piece of a stream is wanted.
constexpr uint64_t kNoPiece = uint64_t{1} << 62;

std::string What(const Job& job) {
  return job.name.empty() ? "Cannot run the command"
                          : fmt::format("Cannot run job '{}'", job.name);
}

std::string NewId(const std::string& name, uint64_t number) {
  std::random_device random;
  return fmt::format("{}.{:08x}{:x}", name.empty() ? "-" : name, random(),
                     number);
}

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
  return has < JobOutput::kHead ? has : kNoPiece;
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

std::string_view JobStateName(JobState state) {
  switch (state) {
    case JobState::kNew:
      return "new";
    case JobState::kRunning:
      return "running";
    case JobState::kEnded:
      return "ended";
    case JobState::kLost:
      return "lost";
  }
  return "lost";
}

std::vector<JobPtr> Exec::List(const std::string& uuid) const {
  MutexLock lock(mutex_);
  std::vector<JobPtr> jobs;
  for (auto at = names_.lower_bound({uuid, ""});
       at != names_.end() && at->first.first == uuid; ++at) {
    jobs.push_back(entries_.at(at->second).job);
  }
  return jobs;
}

JobPtr Exec::Find(const std::string& uuid, const std::string& name) const {
  MutexLock lock(mutex_);
  const auto found = names_.find({uuid, name});
  return found == names_.end() ? nullptr : entries_.at(found->second).job;
}

JobPtr Exec::Get(const std::string& id) const {
  MutexLock lock(mutex_);
  const auto found = entries_.find(id);
  return found == entries_.end() ? nullptr : found->second.job;
}

JobPtr Exec::Make(const std::string& uuid, const std::string& name) {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  if (sandbox == nullptr) {
    throw Error(ENOENT, "Cannot make a job: the sandbox is gone");
  }
  auto job = std::make_shared<Job>();
  job->uuid = uuid;
  job->name = name;
  job->wish.user = sandbox->user;
  job->reason = "its command is not written yet";
  job->changed = std::chrono::system_clock::now();
  {
    MutexLock lock(mutex_);
    const auto first = names_.lower_bound({uuid, ""});
    const auto last = names_.lower_bound({uuid + '\1', ""});
    if (names_.contains({uuid, name}) && !name.empty()) {
      throw Error(EEXIST, fmt::format("Cannot make job '{}': there is one; "
                                      "rmdir it, or choose another name",
                                      name));
    }
    if (static_cast<size_t>(std::distance(first, last)) >= kMost) {
      throw Error(ENOSPC, fmt::format("Cannot make job '{}': there are {} "
                                      "already; rmdir some",
                                      name, kMost));
    }
    job->id = NewId(name, ++last_);
    if (!name.empty()) names_[{uuid, name}] = job->id;
    entries_[job->id].job = job;
  }
  core_.catalog.Touch(uuid);
  return job;
}

void Exec::Prepare(const std::string& id,
                   const std::function<void(JobWish&)>& change) {
  std::string uuid;
  {
    MutexLock lock(mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end()) {
      throw Error(ENOENT, "Cannot prepare the job: it is gone");
    }
    Entry& entry = found->second;
    if (entry.job->state != JobState::kNew) {
      throw Error(EBUSY, fmt::format("Cannot change job '{}': it has run; "
                                     "mkdir another",
                                     entry.job->name));
    }
    auto job = std::make_shared<Job>(*entry.job);
    change(job->wish);
    job->changed = std::chrono::system_clock::now();
    entry.job = job;
    uuid = job->uuid;
  }
  core_.catalog.Touch(uuid);
}

void Exec::Run(const std::string& id, const std::vector<std::string>& words,
               bool shell, bool wait, Reply<Done> reply) {
  const JobPtr job = Get(id);
  if (job == nullptr) {
    throw Error(ENOENT, "Cannot run the job: it is gone");
  }
  const SandboxPtr sandbox = core_.Reachable(job->uuid, What(*job));
  if (sandbox->state != State::kRunning && sandbox->state != State::kStarting) {
    throw Error(
        EHOSTDOWN,
        fmt::format("{}: the sandbox is {}; echo {} > "
                    "status first",
                    What(*job), StateName(sandbox->state),
                    sandbox->state == State::kPaused ? "resume" : "start"));
  }
  Prepare(id, [&](JobWish& wish) {
    wish.words = words;
    wish.shell = shell;
    if (JobScript(id, wish).size() > kLongestScript) {
      throw Error(E2BIG, fmt::format("{}: command and env are too long "
                                     "together; put a script into the guest",
                                     What(*job)));
    }
  });
  {
    MutexLock lock(mutex_);
    Entry& entry = entries_.at(id);
    if (entry.job->state != JobState::kNew) {
      throw Error(EBUSY, fmt::format("{}: it was just begun", What(*job)));
    }
    auto running = std::make_shared<Job>(*entry.job);
    running->state = JobState::kRunning;
    running->reason = "it is being begun";
    entry.job = running;
    entry.since = Clock::now();
    entry.waiting.push_back(wait ? reply : Reply<Done>());
  }
  core_.workers.Run([this, id, wait, reply] {
    Begin(id);
    if (!wait) reply.Ok();
  });
}

void Exec::Change(const std::string& id,
                  const std::function<void(Job&)>& change) {
  std::vector<Reply<Done>> waiting;
  JobPtr shown;
  {
    MutexLock lock(mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end()) return;
    auto job = std::make_shared<Job>(*found->second.job);
    change(*job);
    job->changed = std::chrono::system_clock::now();
    found->second.job = shown = job;
    if (job->state != JobState::kRunning) {
      waiting.swap(found->second.waiting);
      found->second.begun = false;
    }
  }
  core_.catalog.Touch(shown->uuid);
  for (const auto& reply : waiting) {
    if (shown->state == JobState::kEnded) {
      reply.Ok();
    } else if (shown->state == JobState::kLost) {
      reply.Fail(Error(EHOSTDOWN,
                       fmt::format("{}: it did not end, {}; see console.log",
                                   What(*shown), shown->reason)));
    } else {
      reply.Fail(Error(
          EINVAL, fmt::format("{}: {}; mend the job's files and write again",
                              What(*shown), shown->reason)));
    }
  }
}

void Exec::Fail(const std::string& id, const Error& error) {
  std::vector<Reply<Done>> waiting;
  {
    MutexLock lock(mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end()) return;
    waiting.swap(found->second.waiting);
  }
  for (const auto& reply : waiting) reply.Fail(error);
}

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
    BeginBySsh(*job, why);
  } catch (const Error& error) {
    Fail(id, error);
    Change(id, [&](Job& changed) {
      changed.state = JobState::kNew;
      changed.reason = OneLine(error.Sentence());
    });
  }
}

void Exec::BeginBySsh(const Job& job, const std::string& agent) {
  JobReport report;
  try {
    report = ParseJobReport(
        RunBySshAsRoot(core_, job.uuid, DetachedJobScript(job.id, job.wish),
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
    if (report || told.kind != JobReport::Kind::kGone) {
      Take(job.id, told, job);
    }
  }
}

JobReport Exec::Report(const Job& job, bool by_ssh, int wait) {
  const uint64_t out = Wanted(job.out);
  const uint64_t err = Wanted(job.err);
  const std::string script = JobReportScript(job.id, out, err, wait);
  const ShellResult result =
      by_ssh ? RunBySshAsRoot(core_, job.uuid, script, "", kAnswer)
             : RunInGuest(core_, job.uuid, AsRoot(script), "", kAnswer);
  return ParseJobReport(result.output, out, err);
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

void Exec::Refresh(const std::string& id, Reply<Done> reply) {
  const JobPtr job = Get(id);
  if (job == nullptr || job->state != JobState::kRunning) {
    reply.Ok();
    return;
  }
  core_.workers.Run([this, id, reply] {
    reply.Guard([&] {
      bool by_ssh = false;
      JobPtr now;
      {
        MutexLock lock(mutex_);
        const auto found = entries_.find(id);
        if (found != entries_.end() && found->second.begun) {
          by_ssh = found->second.by_ssh;
          now = found->second.job;
        }
      }
      if (now) {
        const JobReport report = Report(*now, by_ssh, 0);
        // The agent began it, and it has not come to its first line yet; that
        // it is gone for good is for the agent to tell.
        if (by_ssh || report.kind != JobReport::Kind::kGone) {
          Take(id, report, *now);
        }
      }
      reply.Ok();
    });
  });
}

void Exec::Read(const std::string& id, JobStream stream, uint64_t offset,
                Reply<std::string> reply) {
  const JobPtr job = Get(id);
  if (job == nullptr) {
    throw Error(ENOENT, "Cannot read on: the job is gone");
  }
  const bool out = stream == JobStream::kOut;
  const JobOutput& output = out ? job->out : job->err;
  if (offset >= output.size) {
    reply.Ok("");
    return;
  }
  if (offset < output.head->size()) {
    reply.Ok(output.head->substr(offset));
    return;
  }
  bool by_ssh = false;
  {
    MutexLock lock(mutex_);
    const auto found = entries_.find(id);
    if (found != entries_.end()) by_ssh = found->second.by_ssh;
  }
  core_.workers.Run([this, job, out, offset, by_ssh, reply] {
    reply.Guard([&] {
      const uint64_t from_out = out ? offset : kNoPiece;
      const uint64_t from_err = out ? kNoPiece : offset;
      const std::string script =
          JobReportScript(job->id, from_out, from_err, 0, kJobStretch);
      const ShellResult result =
          by_ssh ? RunBySshAsRoot(core_, job->uuid, script, "", kAnswer)
                 : RunInGuest(core_, job->uuid, AsRoot(script), "", kAnswer);
      const JobReport report =
          ParseJobReport(result.output, from_out, from_err, kJobStretch);
      std::string bytes = out ? report.out : report.err;
      if (bytes.empty()) {
        throw Error(EIO, fmt::format("Cannot read the output of job '{}': "
                                     "what is beyond {} was in the guest, "
                                     "which was started anew",
                                     job->name, FormatSize(JobOutput::kHead)));
      }
      reply.Ok(std::move(bytes));
    });
  });
}

std::shared_ptr<void> Exec::Watch(const std::string& id) {
  {
    MutexLock lock(mutex_);
    const auto found = entries_.find(id);
    if (found != entries_.end()) ++found->second.watchers;
  }
  return {nullptr, [this, id](void*) {
            MutexLock lock(mutex_);
            const auto found = entries_.find(id);
            if (found != entries_.end()) --found->second.watchers;
          }};
}

void Exec::Remove(const std::string& id, Reply<Done> reply) {
  Entry entry;
  {
    MutexLock lock(mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end()) {
      throw Error(ENOENT, "Cannot remove the job: it is gone");
    }
    entry = std::move(found->second);
    entries_.erase(found);
    names_.erase({entry.job->uuid, entry.job->name});
    if (entry.job->state == JobState::kEnded) {
      auto& dirty = dirty_[entry.job->uuid];
      dirty.push_back(id);
      // Many may follow: they are cleaned up together.
      if (dirty.size() == 1) {
        core_.timer.After(1000ms, [this, uuid = entry.job->uuid] {
          core_.workers.Run([this, uuid] { Clean(uuid); });
        });
      }
    }
  }
  core_.catalog.Touch(entry.job->uuid);
  for (const auto& waiting : entry.waiting) {
    waiting.Fail(Error(ECANCELED, fmt::format("{}: it was removed meanwhile",
                                              What(*entry.job))));
  }
  if (entry.job->state != JobState::kRunning) {
    reply.Ok();
    return;
  }
  core_.workers.Run(
      [this, id, uuid = entry.job->uuid, by_ssh = entry.by_ssh, reply] {
        reply.Guard([&] {
          const std::string script = EndJobScript({id});
          if (by_ssh) {
            (void)RunBySshAsRoot(core_, uuid, script, "", kAnswer);
          } else {
            (void)RunInGuest(core_, uuid, AsRoot(script), "", kAnswer);
          }
          reply.Ok();
        });
      });
}

void Exec::Clean(const std::string& uuid) {
  std::vector<std::string> ids;
  {
    MutexLock lock(mutex_);
    ids.swap(dirty_[uuid]);
    dirty_.erase(uuid);
  }
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  if (ids.empty() || sandbox == nullptr || sandbox->state != State::kRunning) {
    return;
  }
  try {
    // What is left is gone with the guest.
    (void)RunInGuest(core_, uuid, AsRoot(EndJobScript(ids)), "", kAnswer);
  } catch (const Error& error) {
    spdlog::debug("{}", error.Sentence());
  }
}

void Exec::Look(const std::string& uuid) {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  // libvirt's word: ours is "stopping" while a kill is under way.
  const bool off = core_.catalog.IsOff(uuid);
  std::vector<std::string> lost;
  {
    MutexLock lock(mutex_);
    if (sandbox == nullptr) {
      std::erase_if(entries_, [&](const auto& one) {
        return one.second.job->uuid == uuid;
      });
      std::erase_if(names_,
                    [&](const auto& one) { return one.first.first == uuid; });
      return;
    }
    if (!off) return;
    agentless_.erase(uuid);
    for (const auto& [id, entry] : entries_) {
      if (entry.job->uuid == uuid && entry.job->state == JobState::kRunning) {
        lost.push_back(id);
      }
    }
  }
  for (const auto& id : lost) {
    Change(id, [](Job& job) {
      job.state = JobState::kLost;
      job.reason = "the guest stopped before it ended";
    });
  }
}

}  // namespace sbxfs
