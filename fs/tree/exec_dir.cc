#include "fs/tree/exec_dir.h"

#include <fmt/format.h>

#include <cerrno>

#include "fs/attributes.h"
#include "fs/job_file.h"
#include "fs/name.h"
#include "fs/tree/furnished_dir.h"
#include "fs/value_file.h"

namespace sbxfs {
namespace {

constexpr char kNew[] = "new";

const Row& ExecRow() { return *FindRow(DirKind::kSandbox, "exec"); }

}  // namespace

struct stat ExecDir::Stat(const Caller& reader) {
  const View view = tree_->ViewFor(reader, subject);
  struct stat stat = RowStat(view, ExecRow(), 0);
  stat.st_nlink += tree_->backend.GetJobs().List(subject).size();
  return stat;
}

NodePtr ExecDir::Lookup(const Caller&, const std::string& name) {
  if (name == kNew) return NewJobFile(tree_, subject);
  const JobPtr job = tree_->backend.GetJobs().Find(subject, name);
  if (!job) return nullptr;
  return std::make_shared<JobDir>(tree_, job);
}

std::vector<Dir::Entry> ExecDir::List(const Caller&) {
  std::vector<Entry> entries = {{kNew, NewJobFile(tree_, subject)}};
  for (const auto& job : tree_->backend.GetJobs().List(subject)) {
    entries.push_back({job->name, std::make_shared<JobDir>(tree_, job)});
  }
  return entries;
}

void ExecDir::MakeDir(const Caller& caller, const std::string& name, mode_t,
                      Reply<NodePtr> reply) {
  CheckNotTrashed(tree_->ViewFor(caller, subject), name);
  const Name valid = Name::Parse("make job", name);
  const JobPtr job = tree_->backend.GetJobs().Make(subject, valid.Text());
  tree_->errors.Succeeded(subject);
  reply.Ok(std::make_shared<JobDir>(tree_, job));
}

void ExecDir::RemoveDir(const Caller& caller, const std::string& name,
                        Reply<Done> reply) {
  const JobPtr job = tree_->backend.GetJobs().Find(subject, name);
  if (!job) {
    throw Error(ENOENT,
                fmt::format("Cannot remove job '{}': there is none", name));
  }
  CheckRefused(*tree_, caller, subject + '/', name);
  CheckRefused(*tree_, caller, JobDir(tree_, job).key, name);
  EndJob(tree_, job, Clearing(tree_, subject, reply));
}

JobDir::JobDir(TreePtr tree, const JobPtr& job)
    : Dir(fmt::format("{}/exec/{}/", job->uuid, job->id), job->uuid),
      tree_(std::move(tree)),
      id_(job->id),
      place_(fmt::format("{}/exec/{}/", job->uuid, job->name)) {}

struct stat JobDir::Stat(const Caller& reader) {
  const View view = JobView(*tree_, reader, subject, id_);
  struct stat stat = RowStat(view, ExecRow(), 0);
  SetTime(stat, view.job->changed);
  return stat;
}

NodePtr JobDir::Lookup(const Caller&, const std::string& name) {
  const Row* row = FindRow(DirKind::kJob, name);
  const JobPtr job = tree_->backend.GetJobs().Get(id_);
  if (row == nullptr || !job) return nullptr;
  return JobFile(tree_, *row, job);
}

std::vector<Dir::Entry> JobDir::List(const Caller&) {
  std::vector<Entry> entries;
  const JobPtr job = tree_->backend.GetJobs().Get(id_);
  if (!job) return entries;
  for (const Row& row : Rows(DirKind::kJob)) {
    entries.push_back({std::string(row.name), JobFile(tree_, row, job)});
  }
  return entries;
}

void JobDir::Unlink(const Caller& caller, const std::string& name,
                    Reply<Done>) {
  // rm -r goes on to rmdir, which would end the job.
  tree_->refusals.Set(key, caller.pid);
  throw Error(EPERM, fmt::format("Cannot remove '{}': it belongs to the job; "
                                 "rmdir of the job takes the whole of it",
                                 name));
}

}  // namespace sbxfs
