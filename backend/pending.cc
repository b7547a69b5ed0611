#include "backend/pending.h"

#include <algorithm>
#include <set>
#include <string>

#include "backend/mounts.h"
#include "backend/spec/keys.h"
#include "backend/tunnels.h"

namespace sbxfs {
namespace {

using Keys = std::set<std::string>;

// The keys whose forwards a guest has not, or has beyond what they say.
void AddPendingPorts(Keys& keys, const DomainFacts& facts, const Spec& now) {
  const int port = now.ssh_port != 0 ? now.ssh_port : facts.metadata->ssh_port;
  std::vector<Forward> wanted = ForwardsOf(now, port);
  std::vector<Forward> there = facts.forwards;
  auto take = [](std::vector<Forward>& forwards, int host_port) {
    return std::erase(forwards, SshForward(host_port)) != 0;
  };
  if (!take(there, port) && take(wanted, port)) {
    take(there, facts.metadata->ssh_port);
    keys.emplace("ssh.localPort");
  }
  take(wanted, port);
  if (there != wanted) keys.emplace("portForwards");
}

// What QEMU serves by 9p it serves from the guest's start to its end: a mount
// that came since is by sshfs, and one that went is out of sight, but root in
// the guest can have it back. For virtiofs its memory was to be shared then.
void AddPendingDirectories(Keys& keys, const DomainFacts& facts,
                           const MountWay& way, const Spec& served) {
  Keys wanted;
  if (way.type == MountType::k9p) {
    for (const auto& directory : DirectoriesOf(served)) {
      wanted.insert(directory.tag);
    }
  } else if (way.type == MountType::kVirtiofs && !facts.shared_memory &&
             !served.plain && !served.mounts.empty()) {
    keys.emplace("mountType");
  }
  Keys has = facts.tags;
  std::erase_if(has, IsVirtiofsTag);
  if (!std::includes(wanted.begin(), wanted.end(), has.begin(), has.end())) {
    keys.emplace("mounts");
  }
  if (!std::includes(has.begin(), has.end(), wanted.begin(), wanted.end())) {
    keys.emplace("mountType");
  }
}

// What was put into config.yaml since the definition was made.
Keys ChangedKeys(Core& core, const Metadata& meta, const Spec& now) {
  if (meta.applied == core.StackOf(meta)) return {};
  Keys keys;
  try {
    const Spec applied = core.AppliedSpec(meta);
    const auto changed = Differences(applied, now);
    keys = {changed.begin(), changed.end()};
    // A list is the proxy's, that there is one the network's.
    if (applied.egress.empty() == now.egress.empty()) keys.erase("egress");
  } catch (const Error&) {
    keys = {"config.yaml"};
  }
  // The guest knows nothing of the first ones, and the last are looked at
  // themselves.
  std::erase_if(keys, [](const auto& key) {
    return !WhyIdle(key).empty() || key == "description" ||
           key == "autostart" || key == "snapshotMemory" || key == "warm" ||
           key == "idle" || key.starts_with("ssh.forward") || key == "ssh.ca" ||
           key == "ssh.loadDotSSHPubKeys" || key == "ssh.localPort" ||
           key == "portForwards" || key == "mounts" ||
           key.starts_with("mountType") || key == "cpus" || key == "memory";
  });
  return keys;
}

}  // namespace

std::string PendingOf(Core& core, const DomainFacts& facts, const Spec& now,
                      const std::optional<Spec>& served, std::string_view xml) {
  const Metadata& meta = *facts.metadata;
  Keys keys = ChangedKeys(core, meta, now);
  // 0 where it was not grown.
  if (keys.contains("disk") && ParseRun(xml).disk == now.disk) {
    keys.erase("disk");
  }
  if (facts.cpus != now.cpus) keys.emplace("cpus");
  if (!SameMemory(facts.memory, now.memory)) keys.emplace("memory");
  if (!core.test_driver) {
    if (meta.disk_volume.empty()) keys.emplace("image");
    AddPendingPorts(keys, facts, now);
  }
  if (served) {
    const auto tunnels = TunnelsOf(*served);
    if (TunnelsDigest(tunnels) != NotedTunnels(xml)) {
      const size_t proxies = served->egress.empty() ? 0 : 1;
      if (proxies != 0) keys.emplace("egress");
      if (tunnels.size() != proxies || proxies == 0) {
        keys.emplace("portForwards");
      }
    }
    if (MountsDigest(*served) != NotedMounts(xml)) keys.emplace("mounts");
    AddPendingDirectories(keys, facts, core.WayOfMounts(now, meta), *served);
  }
  for (const auto& key : facts.changed) {
    keys.erase(key);
    keys.emplace("virsh: " + key);
  }
  std::string pending;
  for (const auto& key : keys) pending += key + "\n";
  return pending;
}

}  // namespace sbxfs
