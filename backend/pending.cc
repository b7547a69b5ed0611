#include "backend/pending.h"

#include <algorithm>
#include <string>
#include <vector>

#include "backend/spec/keys.h"

namespace sbxfs {
namespace {

// The keys whose forwards a guest has not, or has beyond what they say.
void AddPendingPorts(std::vector<std::string>& keys, const DomainFacts& facts,
                     const Spec& now) {
  const int port = now.ssh_port != 0 ? now.ssh_port : facts.metadata->ssh_port;
  std::vector<Forward> wanted = ForwardsOf(now, port);
  std::vector<Forward> there = facts.forwards;
  auto take = [](std::vector<Forward>& forwards, int host_port) {
    return std::erase(forwards, SshForward(host_port)) != 0;
  };
  if (!take(there, port) && take(wanted, port)) {
    take(there, facts.metadata->ssh_port);
    keys.emplace_back("ssh.localPort");
  }
  take(wanted, port);
  if (there != wanted) keys.emplace_back("portForwards");
}

}  // namespace

std::string PendingOf(Core& core, const DomainFacts& facts, const Spec& now) {
  const Metadata& meta = *facts.metadata;
  std::vector<std::string> keys;
  if (meta.applied != core.StackOf(meta)) {
    try {
      keys = Differences(core.AppliedSpec(meta), now);
    } catch (const Error&) {
      keys = {"config.yaml"};
    }
  }
  // The guest knows nothing of the first ones, and the last are looked at
  // themselves.
  std::erase_if(keys, [](const auto& key) {
    return !WhyIdle(key).empty() || key == "description" ||
           key == "autostart" || key == "snapshotMemory" ||
           key.starts_with("ssh.forward") || key == "ssh.loadDotSSHPubKeys" ||
           key == "ssh.localPort" || key == "portForwards" || key == "mounts" ||
           key == "cpus" || key == "memory";
  });
  if (facts.cpus != now.cpus) keys.emplace_back("cpus");
  if (!SameMemory(facts.memory, now.memory)) keys.emplace_back("memory");
  if (!core.test_driver) {
    if (meta.disk_volume.empty()) keys.emplace_back("image");
    AddPendingPorts(keys, facts, now);
  }
  std::sort(keys.begin(), keys.end());
  std::string pending;
  for (const auto& key : keys) pending += key + "\n";
  return pending;
}

}  // namespace sbxfs
