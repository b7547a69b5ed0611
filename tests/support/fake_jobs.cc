#include "tests/support/fake_jobs.h"

#include <fmt/format.h>

#include <cerrno>

namespace sbxfs {
namespace {

void Extend(JobOutput& output, const std::string& bytes) {
  output.head = std::make_shared<const std::string>(*output.head + bytes);
  output.size = output.head->size();
}

}  // namespace

void FakeJobs::Change(const std::string& id,
                      const std::function<void(Job&)>& change) {
  std::string uuid;
  {
    MutexLock lock(mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end()) throw Error(ENOENT, "no such job");
    auto job = std::make_shared<Job>(*found->second.job);
    change(*job);
    found->second.job = job;
    uuid = job->uuid;
  }
  changed_(uuid);
}

void FakeJobs::Say(const std::string& id, const std::string& out,
                   const std::string& err) {
  Change(id, [&](Job& job) {
    Extend(job.out, out);
    Extend(job.err, err);
  });
}

void FakeJobs::End(const std::string& id, int exit_code) {
  Change(id, [&](Job& job) {
    job.state = JobState::kEnded;
    job.exit_code = exit_code;
    job.reason = fmt::format("ended with exit code {}", exit_code);
  });
  std::vector<Reply<Done>> waiting;
  {
    MutexLock lock(mutex_);
    waiting.swap(entries_.at(id).waiting);
  }
  for (const auto& reply : waiting) reply.Ok();
}

std::string FakeJobs::Last() const {
  MutexLock lock(mutex_);
  return fmt::format("job{}", last_);
}

int FakeJobs::Watched(const std::string& id) const {
  MutexLock lock(mutex_);
  return entries_.at(id).watchers;
}

std::vector<JobPtr> FakeJobs::List(const std::string& uuid) const {
  MutexLock lock(mutex_);
  std::map<std::string, JobPtr> named;
  for (const auto& [id, entry] : entries_) {
    if (entry.job->uuid == uuid && !entry.job->name.empty()) {
      named[entry.job->name] = entry.job;
    }
  }
  std::vector<JobPtr> jobs;
  for (const auto& [name, job] : named) jobs.push_back(job);
  return jobs;
}

JobPtr FakeJobs::Find(const std::string& uuid, const std::string& name) const {
  for (const auto& job : List(uuid)) {
    if (job->name == name) return job;
  }
  return nullptr;
}

JobPtr FakeJobs::Get(const std::string& id) const {
  MutexLock lock(mutex_);
  const auto found = entries_.find(id);
  return found == entries_.end() ? nullptr : found->second.job;
}

JobPtr FakeJobs::Make(const std::string& uuid, const std::string& name) {
  auto job = std::make_shared<Job>();
  job->uuid = uuid;
  job->name = name;
  job->wish.user = "lima";
  if (!name.empty() && Find(uuid, name)) throw Error(EEXIST, "there is one");
  {
    MutexLock lock(mutex_);
    job->id = fmt::format("job{}", ++last_);
    entries_[job->id].job = job;
  }
  changed_(uuid);
  return job;
}

void FakeJobs::Prepare(const std::string& id,
                       const std::function<void(JobWish&)>& change) {
  Change(id, [&](Job& job) {
    if (job.state != JobState::kNew) throw Error(EBUSY, "it has run");
    change(job.wish);
  });
}

void FakeJobs::Run(const std::string& id, const std::vector<std::string>& words,
                   bool shell, bool wait, Reply<Done> reply) {
  Prepare(id, [&](JobWish& wish) {
    wish.words = words;
    wish.shell = shell;
  });
  {
    MutexLock lock(mutex_);
    if (wait) entries_.at(id).waiting.push_back(reply);
  }
  Change(id, [](Job& job) { job.state = JobState::kRunning; });
  if (!wait) reply.Ok();
}

void FakeJobs::Await(const std::string& id, Reply<Done> reply) {
  {
    MutexLock lock(mutex_);
    Entry& entry = entries_.at(id);
    if (entry.job->state == JobState::kRunning) {
      entry.waiting.push_back(reply);
      return;
    }
  }
  reply.Ok();
}

void FakeJobs::Refresh(const std::string&, Reply<Done> reply) { reply.Ok(); }

void FakeJobs::Read(const std::string& id, JobStream stream, uint64_t offset,
                    Reply<std::string> reply) {
  const JobPtr job = Get(id);
  if (!job) throw Error(ENOENT, "no such job");
  const auto& head = stream == JobStream::kOut ? job->out.head : job->err.head;
  reply.Ok(offset < head->size() ? head->substr(offset) : "");
}

std::shared_ptr<void> FakeJobs::Watch(const std::string& id) {
  {
    MutexLock lock(mutex_);
    ++entries_.at(id).watchers;
  }
  return {nullptr, [this, id](void*) {
            MutexLock lock(mutex_);
            const auto found = entries_.find(id);
            if (found != entries_.end()) --found->second.watchers;
          }};
}

void FakeJobs::Remove(const std::string& id, Reply<Done> reply) {
  Entry entry;
  {
    MutexLock lock(mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end()) throw Error(ENOENT, "no such job");
    entry = std::move(found->second);
    entries_.erase(found);
  }
  for (const auto& waiting : entry.waiting) {
    waiting.Fail(Error(ECANCELED, "it was removed"));
  }
  changed_(entry.job->uuid);
  reply.Ok();
}

}  // namespace sbxfs
