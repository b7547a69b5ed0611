#include "backend/provision.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <algorithm>
#include <cerrno>
#include <random>

#include "backend/certificates.h"
#include "backend/guest/keys.h"
#include "backend/image/download.h"
#include "backend/libvirt_error.h"
#include "backend/limits.h"
#include "backend/util/log.h"
#include "backend/util/text.h"
#include "backend/virsh_changes.h"

namespace sbxfs {
namespace {

using SystemClock = std::chrono::system_clock;

// A random (version 4) UUID: our volumes are named after it, before libvirt
// could give one.
std::string NewUuid() {
  std::random_device random;
  uint32_t word[4] = {random(), random(), random(), random()};
  word[1] = (word[1] & 0xffff0fff) | 0x00004000;
  word[2] = (word[2] & 0x3fffffff) | 0x80000000;
  return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:04x}{:08x}", word[0],
                     word[1] >> 16, word[1] & 0xffff, word[2] >> 16,
                     word[2] & 0xffff, word[3]);
}

void AddLines(std::vector<std::string>& lines, std::string_view text) {
  for (const std::string_view part : Split(text, '\n')) {
    const std::string_view line = Trim(part);
    if (line.empty() || line.starts_with('#')) continue;
    if (std::find(lines.begin(), lines.end(), line) == lines.end()) {
      lines.emplace_back(line);
    }
  }
}

}  // namespace

void MustBeWanted(bool answered) {
  if (answered) throw Error(ECANCELED, "Cannot go on: nobody waits any more");
}

// --- mkdir ---

void Provision::CheckName(const std::string& uuid, const std::string& name,
                          std::string_view what) {
  const std::string host = GuestHostname(name);
  for (const auto& stranger : core_.Strangers()) {
    if (stranger != host && GuestHostname(stranger) != host) continue;
    throw Error(EEXIST,
                stranger == name
                    ? fmt::format("{}: libvirt has a domain of that name; "
                                  "choose another",
                                  what)
                    : fmt::format("{}: libvirt has a domain '{}', which may "
                                  "have the same host name, {}; choose another",
                                  what, stranger, host));
  }
  for (const auto& other : core_.catalog.All()) {
    if (other->uuid == uuid || other->trashed || !other->ours) continue;
    if (GuestHostname(other->name) != host) continue;
    throw Error(EEXIST,
                other->name == name
                    ? fmt::format("{}: it exists", what)
                    : fmt::format("{}: '{}' exists, whose guest has the same "
                                  "host name, {}; choose another",
                                  what, other->name, host));
  }
}

void Provision::Create(const Caller& caller, const std::string& name,
                       const std::string& config, mode_t mode,
                       Reply<SandboxPtr> reply) {
  core_.workers.Run([this, caller, name, config, mode, reply] {
    reply.Guard(fmt::format("Cannot create '{}'", name), [&] {
      reply.Ok(CreateNamed(caller, name, config, mode, reply, {}));
    });
  });
}

SandboxPtr Provision::CreateNamed(const Caller& caller, const std::string& name,
                                  const std::string& config, mode_t mode,
                                  const Reply<SandboxPtr>& reply,
                                  const Origin* origin) {
  const std::string what = fmt::format("Cannot create '{}'", name);
  const std::string host = GuestHostname(name);
  {
    MutexLock lock(mutex_);
    const auto [earlier, first] = being_made_.try_emplace(host, reply);
    if (!first && earlier->second.Answered()) {
      throw Error(EBUSY, what +
                             ": an earlier attempt is still being undone; try "
                             "again in a moment");
    }
    if (!first) throw Error(EEXIST, what + ": it is being made just now");
  }
  Undo free_name;
  free_name.Add([this, host] {
    MutexLock lock(mutex_);
    being_made_.erase(host);
  });
  try {
    return CreateNow(caller, name, config, mode, reply, origin);
  } catch (const Error& error) {
    // Of which volume there was no room for is no news to a person.
    if (error.Errno() != ENOSPC) throw;
    throw error.As(what);
  }
}

SandboxPtr Provision::CreateNow(const Caller& caller, const std::string& name,
                                const std::string& config, mode_t mode,
                                const Reply<SandboxPtr>& reply,
                                const Origin* origin) {
  const std::string what = fmt::format("Cannot create '{}'", name);
  if (!core_.catalog.GetHost()->connected) {
    core_.connection.Nudge();
    throw Error(EHOSTDOWN, what +
                               ": libvirt cannot be reached; see "
                               ".host/connection");
  }
  CheckName("", name, what);
  Metadata meta;
  meta.user = origin != nullptr ? origin->user : GuestUser(caller.uid);
  meta.config = config.empty() ? Skeleton(core_.SpecOf(meta)) : config;
  meta.bases =
      origin != nullptr ? origin->bases : core_.TakeBasesOf(meta.config);
  const Spec spec = core_.SpecOf(meta);
  mounts_.Check(caller, {caller.uid, name}, Spec(), spec, what);
  disks_.Check(caller.uid, spec, what);
  Networks::Check(spec, what);
  CheckSettings(core_, caller.uid, "", spec, 1, what);
  meta.user = spec.user;
  meta.applied = core_.StackOf(meta);
  meta.uid = caller.uid;
  meta.gid = caller.gid;
  meta.mode = mode;
  meta.machine = core_.machine;
  meta.created = meta.used = meta.config_time = SystemClock::now();
  meta.pool = core_.options.pool;

  const std::string uuid = NewUuid();
  Undo undo;
  undo.Add([this, uuid] { Insist(uuid, [this, uuid] { TakeBack(uuid); }); });
  meta.ssh_port = ports_.Reserve(uuid, spec.ssh_port, what);
  Undo release;  // in the catalog the sandbox itself holds it
  release.Add([this, port = meta.ssh_port] { ports_.Release(port); });

  bool uefi = false;
  if (!core_.test_driver) {
    const std::string console = uuid + ".console";
    core_.storage.Write(console, "");
    meta.console_volume = console;
    MustBeWanted(reply.Answered());
    if (origin != nullptr) {
      meta.origin = origin->uuid;
      meta.origin_layer = origin->layer;
      meta.origin_memory = origin->memory;
      if (!origin->memory.empty()) meta.origin_secrets = origin->secrets;
      if (origin->copy) {
        meta.origin_layer = uuid + ".disk";
        origin->copy(meta.origin_layer);
        MustBeWanted(reply.Answered());
      }
      meta.image = origin->image;
      meta.authorized_keys = origin->authorized_keys;
      meta.disk_volume = layers_.Add(uuid, meta.origin_layer, spec.disk, what);
      uefi = origin->uefi;
    } else {
      const auto base = images_.Find(spec.images, core_.ArchOf(spec));
      MustBeWanted(reply.Answered());
      if (base) MakeDisk(meta, uuid + ".disk", spec, *base, what);
      uefi = NeedsUefi(spec, base ? &base->facts : nullptr);
    }
    FreshenSeed(meta, uuid, name, spec);
    MustBeWanted(reply.Answered());
  }
  Define(uuid, name, meta, spec, uefi, what);
  MustBeWanted(reply.Answered());
  core_.Read(uuid);
  SandboxPtr made = core_.catalog.Get(uuid);
  if (made == nullptr) throw Error(EIO, what + ": libvirt lost it again");
  if (origin != nullptr) origin->check();
  MustBeWanted(reply.Answered());
  undo.Keep();
  core_.on_volumes();
  return made;
}

bool Provision::NeedsUefi(const Spec& spec, const ImageFacts* facts) const {
  if (spec.legacy_bios) return !*spec.legacy_bios;
  const std::string arch = core_.ArchOf(spec);
  if (arch != "x86_64" && arch != "i686") return true;
  // BIOS where the image can: it boots 3 s sooner than UEFI under emulation.
  return facts != nullptr && !facts->boots_bios && facts->boots_uefi;
}

void Provision::MakeDisk(Metadata& meta, const std::string& volume,
                         const Spec& spec, const Images::Base& base,
                         std::string_view what) {
  if (base.facts.format == "iso") {
    throw Error(EOPNOTSUPP,
                fmt::format("{}: the image '{}' is an ISO; name a disk image",
                            what, base.name));
  }
  if (spec.disk < base.facts.virtual_size) {
    throw Error(EINVAL,
                fmt::format("{}: disk: {} is smaller than the image '{}', "
                            "which has {}; make it larger",
                            what, FormatSize(spec.disk), base.name,
                            FormatSize(base.facts.virtual_size)));
  }
  core_.storage.Delete(volume);
  core_.storage.Create(volume, "qcow2", spec.disk, base.path,
                       base.facts.format);
  meta.disk_volume = volume;
  meta.image = base.name;
}

DomainInput Provision::InputFor(const std::string& uuid,
                                const std::string& name, const Metadata& meta,
                                const Spec& spec, bool uefi) const {
  DomainInput input;
  input.name = name;
  input.uuid = uuid;
  input.description = spec.description;
  input.metadata = meta;
  input.test = core_.test_driver;
  input.arch = core_.ArchOf(spec);
  input.kvm = core_.kvm && input.arch == core_.arch;
  input.cpu_type = spec.cpu_type;
  input.cpus = spec.cpus;
  input.memory = spec.memory;
  input.max_cpus = spec.max_cpus;
  input.max_memory = spec.max_memory;
  input.uefi = uefi;
  input.disk_volume = meta.disk_volume;
  input.seed_volume = meta.seed_volume;
  for (const auto& disk : spec.additional_disks) {
    input.extra_disks.push_back(disk.name);
  }
  input.disk_place = core_.disk_storage.Place();
  const MountType way = core_.WayOfMounts(spec, meta).type;
  if (way == MountType::k9p) {
    input.directories = DirectoriesOf(ExpandedFor(meta, uuid, name, spec));
  }
  input.shared_memory = way == MountType::kVirtiofs;
  input.mac = MacFor(uuid);
  input.nics = core_.NicsOf(uuid, spec);
  input.forwards = ForwardsOf(spec, meta.ssh_port);
  input.isolated = spec.isolated || !spec.egress.empty();
  return input;
}

void Provision::Define(const std::string& uuid, const std::string& name,
                       const Metadata& meta, const Spec& spec, bool uefi,
                       std::string_view what) {
  DomainInput input = InputFor(uuid, name, meta, spec, uefi);
  if (!meta.console_volume.empty()) {
    input.console_path = core_.storage.PathOf(meta.console_volume);
    input.nvram_path = core_.storage.PathOf(uuid + ".nvram");
  }
  const ConnPtr conn = core_.connection.Get(what);
  input.metadata.defined = NoteDefinition(DomainXml(input));
  std::string xml = DomainXml(input);
  const DomainPtr before(virDomainLookupByUUIDString(conn.get(), uuid.c_str()));
  if (before != nullptr) {
    xml = KeepForeign(xml, TakeString(virDomainGetXMLDesc(
                               before.get(), VIR_DOMAIN_XML_INACTIVE |
                                                 VIR_DOMAIN_XML_SECURE)));
  }
  virResetLastError();
  const DomainPtr domain(virDomainDefineXML(conn.get(), xml.c_str()));
  if (domain == nullptr) {
    // "domain 'box' already exists with uuid …" comes as a failed operation.
    const Error error = LibvirtError(what);
    const DomainPtr other(virDomainLookupByName(conn.get(), name.c_str()));
    if (other == nullptr) throw error;
    char other_uuid[VIR_UUID_STRING_BUFLEN] = "";
    virDomainGetUUIDString(other.get(), other_uuid);
    if (uuid == other_uuid) throw error;
    throw Error(EEXIST, fmt::format("{}: libvirt has a domain of that name; "
                                    "choose another",
                                    what));
  }
  if (!core_.test_driver &&
      virDomainSetAutostart(domain.get(), spec.autostart ? 1 : 0) < 0) {
    ThrowLibvirt(what);
  }
}

std::vector<std::string> Provision::Keys(const Metadata& meta,
                                         const std::string& uuid) {
  std::vector<std::string> keys{core_.identity.public_key};
  AddLines(keys, meta.authorized_keys);
  AddLines(keys, core_.catalog.GetHost()->authorized_keys);
  try {
    const Spec spec = core_.SpecOf(meta);
    if (spec.ssh_ca) {
      AddLines(keys, AuthorityLine(PrincipalOf(uuid, meta.certificates_revoked),
                                   core_.ssh_ca));
    }
    if (spec.load_dot_ssh_pub_keys && meta.machine == core_.machine) {
      for (const auto& key : DotSshPublicKeys(meta.uid)) AddLines(keys, key);
    }
  } catch (const Error& error) {
    spdlog::debug("{}", error.Sentence());
  }
  return keys;
}

std::string Provision::KeysDigest(const std::vector<std::string>& keys) {
  std::string all;
  for (const auto& key : keys) all += key + "\n";
  return Base64Encode(Ripemd160(all));
}

void Provision::SetRights(const std::string& uuid, const std::string& file,
                          const FileRights& rights, Reply<Done> reply) {
  const std::string what =
      fmt::format("Cannot change the owner or mode of '{}'",
                  file.empty() ? core_.NameOf(uuid) : file);
  core_.Work(uuid, what, reply, [this, uuid, file, rights, what] {
    core_.ChangeMeta(uuid, what, [&](Metadata& meta) {
      if (meta.machine != core_.machine) {
        // Ids of another machine mean nobody here, and nobody they become.
        const HostPtr host = core_.catalog.GetHost();
        meta.uid = host->uid;
        meta.gid = host->gid;
        meta.machine = core_.machine;
        for (auto& [name, one] : meta.files) one.uid = one.gid = {};
      }
      if (file.empty()) {
        if (rights.uid) meta.uid = *rights.uid;
        if (rights.gid) meta.gid = *rights.gid;
        if (rights.mode) meta.mode = *rights.mode & 0777;
        return;
      }
      FileRights& kept = meta.files[file];
      if (rights.uid) kept.uid = rights.uid;
      if (rights.gid) kept.gid = rights.gid;
      if (rights.mode) kept.mode = *rights.mode & 0777;
    });
    core_.ReadDone(uuid);
  });
}

}  // namespace sbxfs
