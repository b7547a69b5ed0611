#ifndef SBXFS_BACKEND_TUNNELS_H_
#define SBXFS_BACKEND_TUNNELS_H_

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "backend/core.h"
#include "backend/forwards.h"

namespace sbxfs {

// The sockets of running guests on this machine, and this machine's in them:
// what of portForwards QEMU does not carry. Each is an ssh of its own that
// outlives the daemon and ends with the guest; a slip in the sandbox's run
// directory, whose lock it holds, is how any daemon finds it. Only the mount
// of the sandbox's owner makes them, since they have its rights.
class Tunnels {
 public:
  explicit Tunnels(Core& core) : core_(core) {}

  // Throws Error when `caller` may not give the sandbox what `wanted` has and
  // `before` had not. `what` begins the sentence.
  void Check(const Caller& caller, const Sandbox& sandbox, const Spec& before,
             const Spec& wanted, std::string_view what) const;
  // Keeps a running guest's as config.yaml says. Returns at once.
  void Look(const std::string& uuid) EXCLUDES(mutex_);
  // The same of a guest that is not ready yet, but whose ssh answers: where its
  // provision scripts have no other way out. Returns at once.
  void LookEarly(const std::string& uuid) EXCLUDES(mutex_);

 private:
  [[nodiscard]] bool Serves(const Sandbox* sandbox) const;
  // Nothing to carry and nothing carried.
  [[nodiscard]] bool IsIdle(const Sandbox& sandbox) EXCLUDES(mutex_);
  // Blocks. Throws Error for the first that failed, after all were tried.
  void Settle(const Sandbox& sandbox);
  void SettleTurn(const Sandbox& sandbox, const std::vector<Tunnel>& tunnels);
  void Begin(const Sandbox& sandbox, const Tunnel& tunnel,
             const std::filesystem::path& slip, const std::string& digest);
  void Await(const Sandbox& sandbox, const Tunnel& tunnel,
             const std::filesystem::path& slip);
  void Watch(const std::string& uuid) EXCLUDES(mutex_);
  void Note(const Sandbox& sandbox, const std::string& digest);

  Core& core_;
  Mutex mutex_;
  std::set<std::string> watched_ GUARDED_BY(mutex_);
  std::set<std::string> early_ GUARDED_BY(mutex_);
  std::map<std::string, std::string> told_ GUARDED_BY(mutex_);  // failures
};

// A short text for all of them; empty for none.
[[nodiscard]] std::string TunnelsDigest(const std::vector<Tunnel>& tunnels);
// The digest of what a running guest has, as noted in its live definition.
[[nodiscard]] std::string NotedTunnels(std::string_view domain_xml);
// The sockets on this machine by name, for sock/.
[[nodiscard]] std::map<std::string, std::string> SocketsOf(
    const std::vector<Tunnel>& tunnels);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_TUNNELS_H_
