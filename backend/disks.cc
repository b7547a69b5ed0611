#include "backend/disks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "backend/disk_names.h"
#include "backend/libvirt_error.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

constexpr uint64_t kSmallest = 8ULL << 20, kLargest = 64ULL << 40;
// vdc to vdz.
constexpr std::size_t kMost = 24;

}  // namespace

void Disks::Refresh() {
  const uint64_t number = looks_.Begin();
  std::vector<ExtraDisk> disks;
  for (const Volume& volume : core_.disk_storage.List(DiskVolume(""))) {
    disks.push_back({DiskOfVolume(volume.name), volume.capacity,
                     volume.allocation, volume.modified});
  }
  std::sort(
      disks.begin(), disks.end(),
      [](const ExtraDisk& a, const ExtraDisk& b) { return a.name < b.name; });
  const PoolRoom room = core_.LookAtPools();
  core_.catalog.ChangeHostIf([&](Host& host) {
    if (!looks_.Keeps(number)) return false;
    host.disks = disks;
    room.Show(host);
    return true;
  });
}

Turns::Turn Disks::TurnOf(const std::string& name, std::string_view what) {
  // A start that has it is through in a moment.
  return core_.turns.Take(DiskVolume(name), what, 10s);
}

void Disks::Set(const std::string& name, const std::string& size,
                Reply<Done> reply) {
  core_.workers.Run([this, name, size, reply] {
    const std::string what =
        fmt::format("Cannot set disk '{}' to '{}'", name, size);
    reply.Guard(what, [&] {
      if (core_.test_driver) {
        throw Error(EOPNOTSUPP, what + ": the test driver keeps none");
      }
      const auto bytes = ParseSize(size);
      if (!bytes || *bytes < kSmallest || *bytes > kLargest) {
        throw Error(EINVAL,
                    fmt::format("{}: it is no size from 8MiB to 64TiB; write "
                                "one, as in 10GiB",
                                what));
      }
      const Turns::Turn turn = TurnOf(name, what);
      SetNow(name, (*bytes + 511) / 512 * 512, what);
      core_.disk_storage.Announce();
      Refresh();
      reply.Ok();
    });
  });
}

void Disks::SetNow(const std::string& name, uint64_t size,
                   const std::string& what) {
  Storage& storage = core_.disk_storage;
  const std::string volume = DiskVolume(name);
  if (!storage.Has(volume)) {
    storage.CreateDisk(volume, size);
    return;
  }
  uint64_t now = storage.Get(volume).capacity;
  if (size > now && !storage.Kind().grows) {
    storage.Refresh();  // others may have made it larger
    now = storage.Get(volume).capacity;
  }
  if (size < now) {
    throw Error(EINVAL, fmt::format("{}: it has {}, and a disk only grows",
                                    what, FormatSize(now)));
  }
  if (size > now && !storage.Kind().grows) {
    throw Error(EOPNOTSUPP,
                fmt::format("{}: it has {}, and libvirt makes no volume larger "
                            "in '{}', a pool of type {}; do that there, as by "
                            "lvextend, and then write the size here once more",
                            what, FormatSize(now), storage.Pool(),
                            storage.Kind().type));
  }
  // One that others made larger is told to its guest.
  if (size > now || !storage.Kind().grows) Grow(name, size, what);
}

void Disks::Grow(const std::string& name, uint64_t size,
                 const std::string& what) {
  const std::string volume = DiskVolume(name);
  const std::string holder = HolderOf(name, "");
  if (holder.empty()) {
    if (core_.disk_storage.Kind().grows) {
      core_.disk_storage.Resize(volume, size);
    }
    return;
  }
  const DomainPtr domain = core_.Domain(holder, what);
  const auto facts = core_.Facts(holder);
  if (virDomainIsActive(domain.get()) != 1 || !facts) {
    throw Error(EBUSY,
                fmt::format("{}: it is in the saved memory of '{}'; start that "
                            "first",
                            what, core_.NameOf(holder)));
  }
  const auto at = std::find(facts->disk_volumes.begin(),
                            facts->disk_volumes.end(), volume) -
                  facts->disk_volumes.begin();
  if (virDomainBlockResize(domain.get(), facts->disk_targets[at].c_str(), size,
                           VIR_DOMAIN_BLOCK_RESIZE_BYTES) < 0) {
    ThrowLibvirt(what);
  }
}

void Disks::Remove(const std::string& name, Reply<Done> reply) {
  core_.workers.Run([this, name, reply] {
    const std::string what = fmt::format("Cannot remove disk '{}'", name);
    reply.Guard(what, [&] {
      (void)core_.connection.Get(what);
      const Turns::Turn turn = TurnOf(name, what);
      for (const auto& sandbox : core_.catalog.All()) {
        if (!sandbox->disks.contains(name)) continue;
        throw Error(
            EBUSY,
            fmt::format("{}: '{}'{} has it; take it out of additionalDisks in "
                        "its config.yaml first",
                        what, sandbox->name,
                        sandbox->trashed ? " in .host/trash" : ""));
      }
      for (const auto& [uuid, other] : core_.WhoHas(DiskVolume(name))) {
        throw Error(EBUSY, fmt::format("{}: the domain '{}' has it; detach it "
                                       "there first",
                                       what, other));
      }
      core_.disk_storage.Delete(DiskVolume(name));
      core_.disk_storage.Announce();
      Refresh();
      reply.Ok();
    });
  });
}

void Disks::Check(uid_t uid, const Spec& spec, std::string_view what) const {
  if (spec.additional_disks.empty()) return;
  const std::string& first = spec.additional_disks.front().name;
  if (uid != 0 && uid != core_.catalog.GetHost()->uid) {
    throw Error(EPERM, fmt::format("{}: the disk '{}' is the mount owner's; "
                                   "take additionalDisks out of config.yaml",
                                   what, first));
  }
  if (spec.additional_disks.size() > kMost) {
    throw Error(EINVAL, fmt::format("{}: there are {} additional disks; {} are "
                                    "possible",
                                    what, spec.additional_disks.size(), kMost));
  }
}

std::string Disks::HolderOf(const std::string& name, const std::string& uuid) {
  for (const auto& [other, domain] : core_.WhoHas(DiskVolume(name))) {
    if (other != uuid && !core_.catalog.IsOff(other)) return other;
  }
  return "";
}

std::vector<Turns::Turn> Disks::Hold(const std::string& uuid,
                                     std::string_view what) {
  std::vector<Turns::Turn> turns;
  const auto facts = core_.Facts(uuid);
  if (!facts) return turns;
  if (!facts->disk_pool.empty() &&
      facts->disk_pool != core_.disk_storage.Place().Name()) {
    throw Error(EINVAL,
                fmt::format("{}: its saved memory has additional disks of "
                            "'{}'; mount with the -o disk_pool= it was saved "
                            "with",
                            what, facts->disk_pool));
  }
  // Always in one order: two that wait for each other would wait for ever.
  for (const auto& name : DisksAmong(facts->disk_volumes)) {
    turns.push_back(TurnOf(name, what));
    if (!core_.disk_storage.Has(DiskVolume(name))) {
      throw Error(ENOENT, fmt::format("{}: there is no disk '{}'; echo 10GiB > "
                                      ".host/disks/{} makes one",
                                      what, name, name));
    }
    const std::string holder = HolderOf(name, uuid);
    if (holder.empty()) continue;
    throw Error(EBUSY,
                fmt::format("{}: its disk '{}' is in use by '{}'; stop that "
                            "first",
                            what, name, core_.NameOf(holder)));
  }
  return turns;
}

}  // namespace sbxfs
