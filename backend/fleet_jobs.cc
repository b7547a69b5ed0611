#include "backend/fleet_jobs.h"

#include <cerrno>

namespace sbxfs {

std::vector<JobPtr> FleetJobs::List(const std::string& uuid) const {
  for (const auto& member : members_) {
    auto jobs = member.backend->GetJobs().List(uuid);
    if (!jobs.empty()) return jobs;
  }
  return {};
}
JobPtr FleetJobs::Find(const std::string& uuid, const std::string& name) const {
  for (const auto& member : members_) {
    if (auto job = member.backend->GetJobs().Find(uuid, name)) return job;
  }
  return nullptr;
}
JobPtr FleetJobs::Get(const std::string& id) const {
  for (const auto& member : members_) {
    if (auto job = member.backend->GetJobs().Get(id)) return job;
  }
  return nullptr;
}
JobPtr FleetJobs::Make(const std::string& uuid, const std::string& name) {
  for (const auto& member : members_) {
    if (member.backend->Get(uuid)) {
      return member.backend->GetJobs().Make(uuid, name);
    }
  }
  throw Error(ENOENT, "Cannot make a job: the sandbox is gone");
}
Jobs& FleetJobs::Of(const std::string& id) const {
  for (const auto& member : members_) {
    Jobs& jobs = member.backend->GetJobs();
    if (jobs.Get(id)) return jobs;
  }
  return members_.front().backend->GetJobs();
}

void FleetFiles::Run(const FilesOf& whose, Job job) {
  // One that is being moved is in the trash where it goes.
  Backend* holder = nullptr;
  for (const auto& member : members_) {
    const auto sandbox = member.backend->Get(whose.uuid);
    if (!sandbox) continue;
    if (holder == nullptr || !sandbox->trashed) holder = member.backend.get();
  }
  if (holder == nullptr) {
    job.fail(Error(ENOENT, "Cannot go on: the sandbox is gone"));
    return;
  }
  holder->GetFiles().Run(whose, std::move(job));
}

}  // namespace sbxfs
