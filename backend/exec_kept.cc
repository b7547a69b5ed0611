// What is handed on of jobs to a daemon that goes on with the mount.
#include <nlohmann/json.hpp>

#include "backend/exec.h"

namespace sbxfs {
namespace {

using Json = nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::seconds;

// Bytes need not be text.
Json Bytes(const std::string& bytes) {
  return Json::binary({bytes.begin(), bytes.end()});
}
std::string Bytes(const Json& kept) {
  const auto& bytes = kept.get_binary();
  return {bytes.begin(), bytes.end()};
}

Json Kept(const JobOutput& output) {
  return {output.size, output.cut, Bytes(*output.head)};
}
JobOutput OutputOf(const Json& kept) {
  JobOutput output;
  output.size = kept.at(0);
  output.cut = kept.at(1);
  output.head = std::make_shared<const std::string>(Bytes(kept.at(2)));
  return output;
}

Json Kept(const JobWish& wish) {
  Json kept = {{"shell", wish.shell},
               {"cwd", Bytes(wish.cwd)},
               {"user", wish.user},
               {"input", Bytes(wish.input)},
               {"together", wish.together}};
  for (const auto& word : wish.words) kept["words"].push_back(Bytes(word));
  for (const auto& one : wish.env) kept["env"].push_back(Bytes(one));
  if (wish.deadline) kept["deadline"] = wish.deadline->count();
  return kept;
}
JobWish WishOf(const Json& kept) {
  JobWish wish;
  wish.shell = kept.at("shell");
  wish.cwd = Bytes(kept.at("cwd"));
  wish.user = kept.at("user");
  wish.input = Bytes(kept.at("input"));
  wish.together = kept.at("together");
  for (const Json& word : kept.value("words", Json::array())) {
    wish.words.push_back(Bytes(word));
  }
  for (const Json& one : kept.value("env", Json::array())) {
    wish.env.push_back(Bytes(one));
  }
  if (kept.contains("deadline")) {
    wish.deadline = seconds(kept.at("deadline").get<int64_t>());
  }
  return wish;
}

Json Kept(const Job& job) {
  Json kept = {{"id", job.id},
               {"uuid", job.uuid},
               {"name", job.name},
               {"wish", Kept(job.wish)},
               {"state", static_cast<int>(job.state)},
               {"reason", Bytes(job.reason)},
               {"changed", std::chrono::duration_cast<milliseconds>(
                               job.changed.time_since_epoch())
                               .count()},
               {"out", Kept(job.out)},
               {"err", Kept(job.err)}};
  if (job.exit_code) kept["exit_code"] = *job.exit_code;
  return kept;
}
JobPtr JobOf(const Json& kept) {
  auto job = std::make_shared<Job>();
  job->id = kept.at("id");
  job->uuid = kept.at("uuid");
  job->name = kept.at("name");
  job->wish = WishOf(kept.at("wish"));
  job->state = static_cast<JobState>(kept.at("state").get<int>());
  job->reason = Bytes(kept.at("reason"));
  job->changed = std::chrono::system_clock::time_point(
      milliseconds(kept.at("changed").get<int64_t>()));
  job->out = OutputOf(kept.at("out"));
  job->err = OutputOf(kept.at("err"));
  if (kept.contains("exit_code")) job->exit_code = kept.at("exit_code");
  return job;
}

}  // namespace

// One without a name belongs to a file that is open, and goes with that.
std::string Exec::Remember() const {
  Json jobs = Json::array();
  {
    MutexLock lock(mutex_);
    for (const auto& [id, entry] : entries_) {
      if (entry.job->name.empty()) continue;
      Json kept = Kept(*entry.job);
      kept["by_ssh"] = entry.by_ssh;
      if (entry.pid) kept["pid"] = *entry.pid;
      jobs.push_back(std::move(kept));
    }
  }
  if (jobs.empty()) return {};
  const auto bytes = Json::to_cbor(jobs);
  return {bytes.begin(), bytes.end()};
}

void Exec::Recall(const std::string& bytes) {
  std::vector<std::string> running;
  try {
    for (const Json& kept : Json::from_cbor(bytes)) {
      Entry entry;
      entry.job = JobOf(kept);
      entry.by_ssh = kept.at("by_ssh");
      if (kept.contains("pid")) entry.pid = kept.at("pid").get<int64_t>();
      entry.begun = entry.job->state == JobState::kRunning;
      entry.since = entry.due = entry.reported = Clock::now();
      if (entry.begun) running.push_back(entry.job->uuid);
      MutexLock lock(mutex_);
      names_[{entry.job->uuid, entry.job->name}] = entry.job->id;
      entries_[entry.job->id] = std::move(entry);
    }
  } catch (const Json::exception& error) {
    throw Error(EPROTO, std::string("Cannot go on with the jobs of the daemon "
                                    "before: ") +
                            error.what());
  }
  for (const auto& uuid : running) PlanRound(uuid);
}

}  // namespace sbxfs
