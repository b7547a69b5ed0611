// Provision's part for what a guest is told at its boot: the seed.
#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>

#include "backend/guest/boot.h"
#include "backend/image/download.h"
#include "backend/provision.h"
#include "backend/util/log.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

std::string SeedDigest(const SeedInput& seed) {
  std::string all;
  for (const auto& [name, text] : SeedDocuments(seed)) {
    all.append(name).append(1, '\0').append(text).append(1, '\0');
  }
  return Base64Encode(Ripemd160(all));
}

}  // namespace

// A guest takes its host key at its first boot alone, and nobody knows for sure
// that it did until it was ready once: up to then it is the same key that is
// offered, from then on none, so that it is nowhere but in the guest.
std::optional<KeyPair> Provision::SeedHostKey(const Metadata& meta) {
  if (meta.seeded) return std::nullopt;
  if (!meta.seed_volume.empty()) {
    try {
      auto key = HostKeyOf(core_.storage.Read(meta.seed_volume, 0, 0));
      if (key && key->public_key == meta.host_key) return key;
    } catch (const Error& error) {
      if (error.Errno() != ENOENT) throw;
    }
  }
  return MakeKeyPair();
}

// Of a sandbox that the catalog may not have yet, or under another name.
Spec Provision::ExpandedFor(const Metadata& meta, const std::string& uuid,
                            const std::string& name, const Spec& spec) const {
  Sandbox sandbox;
  sandbox.uuid = uuid;
  sandbox.name = name;
  sandbox.uid = meta.uid;
  sandbox.user = meta.booted ? meta.user : spec.user;
  sandbox.ssh_port = meta.ssh_port;
  return core_.Expanded(spec, sandbox, meta.guest_uid);
}

// What its guest took at its first boot may be in the seed alone that a
// snapshot of that time has.
std::string Provision::VolumeForSeed(const Metadata& meta,
                                     const std::string& uuid) {
  if (meta.seed_volume.empty()) return uuid + ".seed";
  for (const auto& one : core_.SnapshotsOf(uuid)) {
    if (one.seed == meta.seed_volume && one.metadata && !one.metadata->seeded) {
      return layers_.NextName(uuid, "seed");
    }
  }
  return meta.seed_volume;
}

SeedInput Provision::SeedFor(const Metadata& meta, const std::string& uuid,
                             const std::string& name,
                             const Spec& wanted) const {
  const Spec spec = ExpandedFor(meta, uuid, name, wanted);
  SeedInput seed;
  // Always the same: to cloud-init another one is another machine.
  seed.instance_id = uuid;
  seed.hostname = GuestHostname(name);
  // A guest that has booted has its user.
  seed.user = meta.booted ? meta.user : spec.user;
  seed.uid = spec.uid;
  seed.home = spec.home;
  seed.shell = spec.shell;
  seed.comment = spec.comment;
  seed.mac = MacFor(uuid);
  const auto nics = core_.NicsOf(uuid, spec);
  for (std::size_t i = 0; i < nics.size(); ++i) {
    seed.nics.push_back(
        {nics[i].interface, nics[i].mac, spec.networks[i].metric});
  }
  seed.boot = BootDocuments(
      {.name = name,
       .hostname = seed.hostname,
       .instance_id = uuid,
       .user = seed.user,
       .spec = spec,
       .env = GuestEnv(spec, [](const char* var) { return getenv(var); })});
  return seed;
}

bool Provision::FreshenSeed(Metadata& meta, const std::string& uuid,
                            const std::string& name, const Spec& spec) {
  SeedInput seed = SeedFor(meta, uuid, name, spec);
  seed.authorized_keys = Keys(meta, uuid);
  seed.host_key = SeedHostKey(meta);
  const std::string digest = SeedDigest(seed);
  // Writing another that found no room may have taken it away.
  if (digest == meta.seed_digest && core_.storage.Has(meta.seed_volume)) {
    return false;
  }
  const std::string volume = VolumeForSeed(meta, uuid);
  try {
    core_.storage.Write(volume, MakeSeed(seed));
  } catch (const Error& error) {
    if (error.Errno() != ENOSPC) throw;
    throw error.As(fmt::format("Cannot make the seed of '{}'", name));
  }
  meta.seed_volume = volume;
  meta.seed_digest = digest;
  if (seed.host_key) meta.host_key = seed.host_key->public_key;
  if (!meta.booted) {
    meta.user = seed.user;
    meta.guest_keys = KeysDigest(seed.authorized_keys);
  }
  return true;
}

void Provision::DropSeedKey(const std::string& uuid, const std::string& what) {
  Metadata meta = core_.Meta(uuid, what);
  if (!meta.seeded || VolumeForSeed(meta, uuid) != meta.seed_volume) return;
  // Else as it is: the guest may boot from it once more by itself.
  if (!FreshenSeed(meta, uuid, core_.NameOf(uuid), core_.AppliedSpec(meta))) {
    return;
  }
  core_.ChangeMeta(uuid, what, [&meta](Metadata& now) {
    now.seed_digest = meta.seed_digest;
  });
}

}  // namespace sbxfs
