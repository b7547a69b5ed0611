// Mounts' part for what the hypervisor serves: mount/host_directory.h.
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>

#include "backend/guest/boot.h"
#include "backend/guest_shell.h"
#include "backend/libvirt_error.h"
#include "backend/mount/location.h"
#include "backend/mounts.h"
#include "backend/util/text.h"

namespace sbxfs {

using namespace std::chrono_literals;

std::set<std::string> Mounts::Tags(const std::string& uuid) const {
  const auto facts = core_.Facts(uuid);
  return facts ? facts->tags : std::set<std::string>();
}

std::optional<IdMap> Mounts::VirtiofsIds(const Sandbox& sandbox,
                                         const Guest& guest) const {
  const auto facts = core_.Facts(sandbox.uuid);
  if (!facts || !facts->shared_memory || !facts->metadata) return std::nullopt;
  const MountWay way =
      core_.WayOfMounts(core_.SpecOf(*facts->metadata), *facts->metadata);
  if (way.type != MountType::kVirtiofs || !guest.uid || !guest.gid) {
    return std::nullopt;
  }
  return IdMap{sandbox.uid, *guest.uid, getegid(), *guest.gid};
}

void Mounts::PlugIn(const Sandbox& sandbox, const MountSpec& mount,
                    const IdMap& ids) const {
  const std::string what = What(sandbox, mount);
  (void)OpenLocation(mount.location, mount.writable, OwnRights(), what);
  const DomainPtr domain = core_.Domain(sandbox.uuid, what);
  if (virDomainAttachDeviceFlags(domain.get(), VirtiofsXml(mount, ids).c_str(),
                                 VIR_DOMAIN_AFFECT_LIVE) < 0) {
    ThrowLibvirt(what);
  }
  core_.Read(sandbox.uuid);
}

void Mounts::Unplug(const Sandbox& sandbox, const std::string& tag) const {
  constexpr char kWhat[] = "Cannot take a directory out of the guest";
  const DomainPtr domain = core_.Domain(sandbox.uuid, kWhat);
  const std::string xml =
      FilesystemXml(TakeString(virDomainGetXMLDesc(domain.get(), 0)), tag);
  if (xml.empty()) return;
  if (virDomainDetachDeviceFlags(domain.get(), xml.c_str(),
                                 VIR_DOMAIN_AFFECT_LIVE) < 0) {
    ThrowLibvirt(kWhat);
  }
  core_.Read(sandbox.uuid);
}

void Mounts::SettleDirectories(const Sandbox& sandbox, const Guest& guest,
                               std::map<std::string, const MountSpec*>& wanted,
                               Failures& failures) const {
  const std::set<std::string> tags = Tags(sandbox.uuid);
  const auto ids = VirtiofsIds(sandbox, guest);
  // With another uid the files would not be the guest's user's by 9p.
  const bool nine_p = guest.uid == sandbox.uid;
  std::map<std::string, std::string> stays;  // mount points to tags
  std::vector<const MountSpec*> missing;
  std::erase_if(wanted, [&](const auto& one) {
    const MountSpec& mount = *one.second;
    const std::string tag = ids ? VirtiofsTag(mount, *ids) : TagOf(mount);
    if (!ids && (!nine_p || tags.count(tag) == 0)) return false;
    stays.emplace(mount.mount_point, tag);
    const auto there = guest.tags.find(mount.mount_point);
    if (there == guest.tags.end() || there->second != tag) {
      missing.push_back(&mount);
    }
    return true;
  });
  for (const auto& [point, tag] : guest.tags) {
    const auto stay = stays.find(point);
    if (stay != stays.end() && stay->second == tag) continue;
    (void)RunInGuest(core_, sandbox.uuid, UnmountScript(point, true), "", 30s);
  }
  std::set<std::string> in_use;
  for (const auto& [point, tag] : stays) in_use.insert(tag);
  for (const auto& tag : tags) {
    if (IsVirtiofsTag(tag) && in_use.count(tag) == 0) Unplug(sandbox, tag);
  }
  for (const MountSpec* mount : missing) {
    const std::string& tag = stays.at(mount->mount_point);
    try {
      if (ids && tags.count(tag) == 0) PlugIn(sandbox, *mount, *ids);
      MountDirectory(sandbox, *mount, tag);
    } catch (const Error& error) {
      failures.emplace(mount->name, error);
    }
  }
}

void Mounts::MountDirectory(const Sandbox& sandbox, const MountSpec& mount,
                            const std::string& tag) const {
  const ShellResult result = RunInGuest(
      core_, sandbox.uuid, DirectoryMountScript(mount, tag), "", 30s);
  if (result.status == 0) return;
  throw Error(EIO,
              fmt::format("{}: by {}, mount said '{}'", What(sandbox, mount),
                          IsVirtiofsTag(tag) ? "virtiofs" : "9p",
                          LastWords(result.output)));
}

void Mounts::CheckStart(const std::string& uuid, std::string_view what) const {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  if (sandbox == nullptr) return;
  const std::set<std::string> tags = Tags(uuid);
  if (tags.empty()) return;
  const Spec spec = core_.SpecFor(*sandbox);
  for (const auto& mount : MountsOf(spec)) {
    if (tags.count(TagOf(mount)) == 0) continue;
    (void)OpenLocation(mount.location, mount.writable, OwnRights(), what);
  }
}

Turns::Turn Mounts::Release(const std::string& uuid,
                            std::string_view what) const {
  Turns::Turn turn = TakeTurn(uuid);
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  if (sandbox == nullptr || Tags(uuid).empty()) return turn;
  for (const auto& [point, tag] : AskGuest(*sandbox).tags) {
    if (IsVirtiofsTag(tag)) continue;
    const ShellResult result =
        RunInGuest(core_, uuid, UnmountScript(point, false), "", 30s);
    if (result.status == 0) continue;
    throw Error(
        EBUSY,
        fmt::format("{}: QEMU saves no guest that has a directory by 9p, and "
                    "'{}' could not be unmounted: '{}'; end what uses it, or "
                    "set mountType to reverse-sshfs",
                    what, point, LastWords(result.output)));
  }
  return turn;
}

}  // namespace sbxfs
