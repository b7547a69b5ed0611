#include "backend/fleet_jobs.h"

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
  return view_.Of(uuid).GetJobs().Make(uuid, name);
}
Jobs& FleetJobs::Of(const std::string& id) const {
  for (const auto& member : members_) {
    Jobs& jobs = member.backend->GetJobs();
    if (jobs.Get(id)) return jobs;
  }
  return members_.front().backend->GetJobs();
}

void FleetFiles::Run(const FilesOf& whose, Job job) {
  GuestFiles* files = nullptr;
  try {
    files = &view_.Of(whose.uuid).GetFiles();
  } catch (const Error& error) {
    job.fail(error);
    return;
  }
  files->Run(whose, std::move(job));
}

}  // namespace sbxfs
