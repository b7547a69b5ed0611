#ifndef SBXFS_BACKEND_FLEET_JOBS_H_
#define SBXFS_BACKEND_FLEET_JOBS_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/fleet_view.h"
#include "backend/guest_files.h"
#include "backend/jobs.h"

namespace sbxfs {

// The jobs of all members.
class FleetJobs : public Jobs {
 public:
  // `members` must outlive it.
  explicit FleetJobs(const std::vector<FleetMember>& members)
      : members_(members), view_(members) {}
  [[nodiscard]] std::vector<JobPtr> List(
      const std::string& uuid) const override;
  [[nodiscard]] JobPtr Find(const std::string& uuid,
                            const std::string& name) const override;
  [[nodiscard]] JobPtr Get(const std::string& id) const override;
  JobPtr Make(const std::string& uuid, const std::string& name) override;
  void Prepare(const std::string& id,
               const std::function<void(JobWish&)>& change) override {
    Of(id).Prepare(id, change);
  }
  void Run(const std::string& id, const std::vector<std::string>& words,
           bool shell, bool wait, Reply<Done> reply) override {
    Of(id).Run(id, words, shell, wait, std::move(reply));
  }
  void Await(const std::string& id, Reply<Done> reply) override {
    Of(id).Await(id, std::move(reply));
  }
  void Refresh(const std::string& id, Reply<Done> reply) override {
    Of(id).Refresh(id, std::move(reply));
  }
  void Read(const std::string& id, JobStream stream, uint64_t offset,
            Reply<std::string> reply) override {
    Of(id).Read(id, stream, offset, std::move(reply));
  }
  [[nodiscard]] std::shared_ptr<void> Watch(const std::string& id) override {
    return Of(id).Watch(id);
  }
  void Remove(const std::string& id, Reply<Done> reply) override {
    Of(id).Remove(id, std::move(reply));
  }

 private:
  // Whoever has that job; the first, which has none of it, otherwise.
  [[nodiscard]] Jobs& Of(const std::string& id) const;

  const std::vector<FleetMember>& members_;
  const FleetView view_;
};

// The files of the guests of all members.
class FleetFiles : public GuestFiles {
 public:
  // `members` must outlive it.
  explicit FleetFiles(const std::vector<FleetMember>& members)
      : view_(members) {}
  void Run(const FilesOf& whose, Job job) override;

 private:
  const FleetView view_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_FLEET_JOBS_H_
