#include "backend/exec.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <random>

#include "backend/limits.h"
#include "backend/util/log.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// A variable of an environment has 128 KiB at most, and so has a word.
constexpr size_t kLongestScript = 120 << 10;

std::string NewId(const std::string& name, uint64_t number) {
  std::random_device random;
  return fmt::format("{}.{:08x}{:x}", name.empty() ? "-" : name, random(),
                     number);
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

std::string Exec::What(const Job& job) {
  return job.name.empty() ? "Cannot run the command"
                          : fmt::format("Cannot run job '{}'", job.name);
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

size_t Exec::JobsOf(uid_t uid) const {
  std::vector<std::string> uuids;
  {
    MutexLock lock(mutex_);
    for (const auto& [id, entry] : entries_) uuids.push_back(entry.job->uuid);
  }
  return static_cast<size_t>(
      std::count_if(uuids.begin(), uuids.end(), [&](const std::string& uuid) {
        const SandboxPtr sandbox = core_.catalog.Get(uuid);
        return sandbox != nullptr && sandbox->uid == uid;
      }));
}

std::string Exec::UnderWay() const {
  MutexLock lock(mutex_);
  for (const auto& [id, entry] : entries_) {
    if (entry.job->state != JobState::kRunning || entry.begun) continue;
    return fmt::format("the beginning of job '{}'", entry.job->name);
  }
  return {};
}

JobPtr Exec::Make(const std::string& uuid, const std::string& name) {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  if (sandbox == nullptr) {
    throw Error(ENOENT, "Cannot make a job: the sandbox is gone");
  }
  CheckJobs(core_, *sandbox, JobsOf(sandbox->uid),
            fmt::format("Cannot make job '{}'", name));
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
  // libvirt pauses a guest while it saves its memory.
  const bool is_saved =
      sandbox->state == State::kSaved ||
      (sandbox->state == State::kPaused && !sandbox->progress.empty());
  if (is_saved && sandbox->idle > 0s) {
    const Reply<Done> started(
        [this, id, words, shell, wait, reply](Outcome<Done> outcome) {
          if (auto* error = std::get_if<Error>(&outcome)) {
            reply.Fail(std::move(*error));
            return;
          }
          reply.Guard([&] { Run(id, words, shell, wait, reply); });
        });
    reply.OnCancel(started.Canceller());
    wake(job->uuid, started);
    return;
  }
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
  for (const auto& reply : waiting) Answer(*shown, reply);
}

void Exec::Answer(const Job& job, const Reply<Done>& reply) {
  if (job.state == JobState::kEnded) {
    reply.Ok();
  } else if (job.state == JobState::kLost) {
    reply.Fail(
        Error(EHOSTDOWN, fmt::format("{}: it did not end, {}; see console.log",
                                     What(job), job.reason)));
  } else {
    reply.Fail(Error(EINVAL,
                     fmt::format("{}: {}; mend the job's files and write again",
                                 What(job), job.reason)));
  }
}

void Exec::Await(const std::string& id, Reply<Done> reply) {
  JobPtr job;
  {
    MutexLock lock(mutex_);
    const auto found = entries_.find(id);
    if (found != entries_.end()) {
      job = found->second.job;
      if (job->state == JobState::kRunning) {
        found->second.waiting.push_back(reply);
        return;
      }
    }
  }
  if (job == nullptr) {
    throw Error(ENOENT, "Cannot wait for the job: it is gone");
  }
  Answer(*job, reply);
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
      const uint64_t from_out = out ? offset : kNoJobPiece;
      const uint64_t from_err = out ? kNoJobPiece : offset;
      const std::string script =
          JobReportScript(job->id, from_out, from_err, 0, kJobStretch);
      const JobReport report = ParseJobReport(
          InGuest(job->uuid, by_ssh, script), from_out, from_err, kJobStretch);
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
      PlanClean(entry.job->uuid, {id});
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
          (void)InGuest(uuid, by_ssh, EndJobScript({id}));
          reply.Ok();
        });
      });
}

void Exec::PlanClean(const std::string& uuid,
                     const std::vector<std::string>& ids) {
  auto& dirty = dirty_[uuid];
  // Many may follow: they are cleaned up together.
  if (dirty.empty()) {
    core_.timer.After(1000ms, [this, uuid] {
      core_.workers.Run([this, uuid] { Clean(uuid); });
    });
  }
  dirty.insert(dirty.end(), ids.begin(), ids.end());
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
    (void)InGuest(uuid, false, EndJobScript(ids));
  } catch (const Error& error) {
    spdlog::debug("{}", error.Sentence());
    // A guest under load answers later. What is left then goes with it.
    MutexLock lock(mutex_);
    PlanClean(uuid, ids);
  }
}

void Exec::Look(const std::string& uuid) {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  // libvirt's word: ours is "stopping" while a kill is under way.
  const bool off = core_.catalog.IsOff(uuid);
  if (sandbox != nullptr && !off) return;
  std::vector<std::string> lost;
  {
    MutexLock lock(mutex_);
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
  if (sandbox != nullptr) return;
  MutexLock lock(mutex_);
  std::erase_if(entries_,
                [&](const auto& one) { return one.second.job->uuid == uuid; });
  std::erase_if(names_,
                [&](const auto& one) { return one.first.first == uuid; });
  dirty_.erase(uuid);
}

}  // namespace sbxfs
