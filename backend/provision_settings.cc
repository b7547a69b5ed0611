// Provision's part for what can be set of a sandbox that is there:
// config.yaml, its single keys, its authorized keys.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "backend/guest/keys.h"
#include "backend/limits.h"
#include "backend/provision.h"
#include "backend/util/log.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

using SystemClock = std::chrono::system_clock;

// Whether its disk is the user's, and rebuilt by no change of config.yaml: it
// was started, or came from a clone or a snapshot.
bool KeepsDisk(const std::string& uuid, const Metadata& meta) {
  return meta.booted || !meta.origin.empty() ||
         (!meta.disk_volume.empty() && meta.disk_volume != uuid + ".disk");
}

// What is said of a value, without the verb of whoever says it, and without
// the place in a text that the writer of a single value never saw.
std::string WithoutPlace(const std::string& sentence) {
  const auto column = sentence.find(", column ");
  const auto end =
      column == std::string::npos
          ? sentence.find("': ",
                          sentence.starts_with("Cannot ") ? 0 : sentence.npos)
          : sentence.find(": ", column);
  if (end == std::string::npos) return sentence;
  return sentence.substr(sentence.find(' ', end) + 1);
}

// Whether a change of config.yaml alone brought about what was wanted.
void CheckForward(const Spec& spec, const std::string& guest, bool wanted) {
  if (spec.plain && wanted) {
    throw Error(EPERM,
                "plain is set, which forwards nothing; take that away "
                "in config.yaml");
  }
  const auto entries = ForwardEntries(spec);
  const auto entry = entries.find(guest);
  const std::string layer =
      entry == entries.end() ? "a stronger layer" : entry->second.layer;
  if ((entry != entries.end()) != wanted ||
      (wanted && layer != "config.yaml")) {
    throw Error(EPERM,
                fmt::format("a rule of {} decides; change it there", layer));
  }
}

int SshPortOf(const Spec& spec, const Metadata& meta) {
  return spec.ssh_port != 0 ? spec.ssh_port : meta.ssh_port;
}

}  // namespace

void Provision::Set(const Caller& caller, const std::string& uuid,
                    Setting setting, const std::string& value,
                    Reply<Done> reply) {
  const std::string name = core_.NameOf(uuid);
  auto one = [&](const char* key, const char* file) {
    const std::string what =
        fmt::format("Cannot set {} of '{}' to '{}'", file, name, value);
    core_.Work(uuid, what, reply, [this, caller, uuid, key, value, what] {
      SetOneKey(caller, uuid, key, value, what);
    });
  };
  switch (setting) {
    case Setting::kConfig: {
      const std::string what =
          fmt::format("Cannot change config.yaml of '{}'", name);
      core_.Work(uuid, what, reply, [this, caller, uuid, value, what] {
        SetConfig(caller, uuid, value, /*keep_rejected=*/true, what);
      });
      return;
    }
    case Setting::kCpus:
      return one("cpus", "cpus");
    case Setting::kMemory:
      return one("memory", "memory");
    case Setting::kDisk:
      return one("disk", "disk");
    case Setting::kDescription:
      return one("description", "description");
    case Setting::kAutostart:
      return one("autostart", "autostart");
    case Setting::kSshPort:
      return one("ssh.localPort", "ssh_port");
    case Setting::kAuthorizedKeys: {
      const std::string what =
          fmt::format("Cannot change authorized_keys of '{}'", name);
      core_.Work(uuid, what, reply, [this, uuid, value, what] {
        CheckAuthorizedKeys(value);
        core_.ChangeMeta(uuid, what, [&](Metadata& meta) {
          meta.authorized_keys = value;
          meta.used = SystemClock::now();
        });
        core_.ReadDone(uuid);
        if (on_keys) on_keys(uuid);
      });
      return;
    }
  }
}

void Provision::SetOneKey(const Caller& caller, const std::string& uuid,
                          const char* key, const std::string& value,
                          const std::string& what) {
  if (SetsKey(core_.catalog.GetHost()->overrides, key)) {
    throw Error(EPERM, fmt::format("{}: .host/override.yaml sets it, which "
                                   "wins; change it there",
                                   what));
  }
  EditConfig(
      caller, uuid,
      [&](const std::string& text) { return SetKey(text, key, value); }, what);
}

void Provision::EditConfig(
    const Caller& caller, const std::string& uuid,
    const std::function<std::string(const std::string&)>& edit,
    const std::string& what) {
  Metadata meta = core_.Meta(uuid, what);
  try {
    meta.config = edit(meta.config);
    (void)core_.SpecOf(meta);
  } catch (const Error& error) {
    throw Error(error.Errno(),
                fmt::format("{}: {}", what, WithoutPlace(error.Sentence())));
  }
  SetConfig(caller, uuid, meta.config, /*keep_rejected=*/false, what);
}

void Provision::SetMount(const Caller& caller, const std::string& uuid,
                         const std::string& name, const std::string& value,
                         Reply<Done> reply) {
  const std::string what =
      value.empty() ? fmt::format("Cannot remove mount '{}' of '{}'", name,
                                  core_.NameOf(uuid))
                    : fmt::format("Cannot mount '{}' as '{}' in '{}'", value,
                                  name, core_.NameOf(uuid));
  core_.Work(uuid, what, reply, [this, caller, uuid, name, value, what] {
    const Metadata meta = core_.Meta(uuid, what);
    const auto entries = MountEntries(core_.SpecOf(meta));
    const auto entry = entries.find(name);
    if (entry != entries.end() && entry->second.layer != "config.yaml") {
      throw Error(EPERM, fmt::format("{}: it comes from {}; change it there",
                                     what, entry->second.layer));
    }
    EditConfig(
        caller, uuid,
        [&](const std::string& text) {
          return sbxfs::SetMount(text, name, value);
        },
        what);
  });
}

void Provision::SetPort(const Caller& caller, const std::string& uuid,
                        const std::string& guest, const std::string& value,
                        Reply<Done> reply) {
  const std::string what =
      value.empty() ? fmt::format("Cannot close port '{}' of '{}'", guest,
                                  core_.NameOf(uuid))
                    : fmt::format("Cannot forward port '{}' of '{}' to '{}'",
                                  guest, core_.NameOf(uuid), value);
  core_.Work(uuid, what, reply, [this, caller, uuid, guest, value, what] {
    const Metadata meta = core_.Meta(uuid, what);
    EditConfig(
        caller, uuid,
        [&](const std::string& old) {
          Metadata changed = meta;
          changed.config = SetForward(old, guest, value);
          const Spec spec = core_.SpecOf(changed);
          CheckForward(spec, guest, !value.empty());
          (void)ForwardsOf(spec, SshPortOf(spec, meta));
          return changed.config;
        },
        what);
  });
}

void Provision::CheckHostSide(const Caller& caller, const std::string& uuid,
                              const Metadata& meta, const Spec& spec,
                              std::string_view what) {
  const SandboxPtr sandbox = core_.Reachable(uuid, what);
  Spec before;
  try {
    before = core_.SpecOf(meta);
  } catch (const Error& error) {
    // Written behind our back: then all of it is new.
    spdlog::debug("{}", error.Sentence());
  }
  mounts_.Check(caller, {sandbox->uid, sandbox->name}, before, spec, what);
  tunnels_.Check(caller, *sandbox, before, spec, what);
  disks_.Check(sandbox->uid, spec, what);
  Networks::Check(spec, what);
}

// What a text asks for that this sandbox, at this moment, cannot have.
void Provision::CheckChange(const Caller& caller, const std::string& uuid,
                            const Metadata& meta, const Spec& spec,
                            std::string_view what) {
  CheckHostSide(caller, uuid, meta, spec, what);
  CheckSettings(core_, meta.uid, uuid, spec, SshPortOf(spec, meta), what);
  if (spec.ssh_port != 0 && spec.ssh_port != meta.ssh_port) {
    ports_.Release(ports_.Reserve(uuid, spec.ssh_port, what));
  }
  const auto facts = core_.Facts(uuid);
  ports_.CheckAddresses(spec, what);
  ports_.Check(uuid, ForwardsOf(spec, SshPortOf(spec, meta)),
               facts ? facts->forwards : std::vector<Forward>(), what);
  if (!KeepsDisk(uuid, meta) || meta.disk_volume.empty()) return;
  const uint64_t size = core_.storage.Get(meta.disk_volume).capacity;
  if (spec.disk < size) {
    throw Error(EINVAL,
                fmt::format("{}: disk: {} is smaller than its disk, which has "
                            "{}; a disk only grows",
                            what, FormatSize(spec.disk), FormatSize(size)));
  }
}

void Provision::SetConfig(const Caller& caller, const std::string& uuid,
                          const std::string& text, bool keep_rejected,
                          const std::string& what) {
  core_.Read(uuid);
  const Metadata before = core_.Meta(uuid, what);
  const auto facts = core_.Facts(uuid);
  // By virsh: what it says counts until now.
  const bool changed = facts && !facts->changed.empty();
  Metadata after = before;
  after.config = text;
  Spec spec;
  try {
    // Only who saves the whole document takes its bases in anew.
    if (keep_rejected) after.bases = core_.TakeBasesOf(text);
    if (text == before.config && after.bases == before.bases &&
        before.rejected.empty() && !changed) {
      return;
    }
    spec = core_.SpecOf(after);
    CheckChange(caller, uuid, before, spec, what);
  } catch (const Error& error) {
    if (keep_rejected) {
      core_.ChangeMeta(uuid, what, [&](Metadata& meta) {
        meta.rejected = text;
        meta.rejected_reason = error.Sentence();
      });
      core_.Read(uuid);
    }
    throw;
  }
  const bool off = IsOff(core_.Reachable(uuid, what)->state);
  Undo undo;
  undo.Add([&] {
    Insist(uuid, [this, uuid, what, before] {
      core_.ChangeMeta(uuid, what, [&before](Metadata& meta) {
        meta.config = before.config;
        meta.bases = before.bases;
        meta.config_time = before.config_time;
        meta.ssh_port = before.ssh_port;
        meta.defined = before.defined;
      });
      core_.Read(uuid);
    });
  });
  const auto forwards = ForwardsOf(spec, SshPortOf(spec, before));
  if (!off) OpenPorts(uuid, forwards, what, undo);
  core_.ChangeMeta(uuid, what, [&](Metadata& meta) {
    meta.config = text;
    meta.bases = after.bases;
    meta.config_time = meta.used = SystemClock::now();
    if (!off) meta.ssh_port = SshPortOf(spec, meta);
    if (changed) meta.defined.clear();
    if (keep_rejected) {
      meta.rejected.clear();
      meta.rejected_reason.clear();
    }
  });
  core_.Read(uuid);
  if (off) {
    Apply(uuid, what);
  } else if (!core_.test_driver) {
    // Closed last, when ssh_config names the new one.
    ports_.Change(uuid, forwards, what);
    // These mean nothing to the guest, so they hold at once.
    const DomainPtr domain = core_.Domain(uuid, what);
    virDomainSetAutostart(domain.get(), spec.autostart ? 1 : 0);
    virDomainSetMetadata(domain.get(), VIR_DOMAIN_METADATA_DESCRIPTION,
                         spec.description.c_str(), nullptr, nullptr,
                         VIR_DOMAIN_AFFECT_CONFIG | VIR_DOMAIN_AFFECT_LIVE);
    core_.RenewDefined(uuid, what, {"description"});
    core_.ReadDone(uuid);
    if (on_keys) on_keys(uuid);
  }
  undo.Keep();
}

// The new beside the old, which are closed when all else is done.
void Provision::OpenPorts(const std::string& uuid,
                          const std::vector<Forward>& forwards,
                          const std::string& what, Undo& undo) {
  const auto facts = core_.Facts(uuid);
  if (!facts || facts->forwards == forwards) return;
  std::vector<Forward> both = forwards;
  for (const Forward& old : facts->forwards) {
    if (std::none_of(forwards.begin(), forwards.end(),
                     [&](const auto& one) { return Collide(old, one); })) {
      both.push_back(old);
    }
  }
  std::sort(both.begin(), both.end());
  undo.Add([this, uuid, what, old = facts->forwards] {
    ports_.Change(uuid, old, what);
  });
  ports_.Change(uuid, both, what);
}

bool Provision::IsOutdated(const DomainFacts& facts, const Metadata& meta,
                           const Spec& spec) const {
  // The mount may be another, which keeps additional disks elsewhere.
  if (!facts.disk_pool.empty() &&
      facts.disk_pool != core_.disk_storage.Place().Name()) {
    return true;
  }
  if (spec.mounts.empty() || spec.plain) return false;
  // Where the guest told its user's uid, 9p may not serve it any more; and the
  // libvirt may be another.
  const MountType way = core_.WayOfMounts(spec, meta).type;
  return facts.tags.empty() == (way == MountType::k9p) ||
         facts.shared_memory != (way == MountType::kVirtiofs);
}

void Provision::Apply(const std::string& uuid, std::string_view what) {
  Metadata meta = core_.Meta(uuid, what);
  const auto facts = core_.Facts(uuid);
  const std::string name = facts ? facts->name : core_.NameOf(uuid);
  const Spec spec = core_.SpecOf(meta);
  if (meta.applied == core_.StackOf(meta) && !meta.defined.empty()) {
    // The seed depends on more: the name, keys, proxies.
    const std::string volume = meta.seed_volume;
    if (core_.test_driver) return;
    const bool outdated = facts && IsOutdated(*facts, meta, spec);
    if (!FreshenSeed(meta, uuid, name, spec) && !outdated) return;
    if (meta.seed_volume == volume && !outdated) {
      core_.ChangeMeta(uuid, what, [&meta](Metadata& now) {
        now.seed_volume = meta.seed_volume;
        now.seed_digest = meta.seed_digest;
        now.host_key = meta.host_key;
        now.user = meta.user;
        now.guest_keys = meta.guest_keys;
      });
    } else {
      Define(uuid, name, meta, spec, facts && facts->uefi, what);
    }
    core_.ReadDone(uuid);
    return;
  }
  std::vector<std::string> changed;
  try {
    changed = Differences(core_.AppliedSpec(meta), spec);
  } catch (const Error&) {
    changed = {"images", "user"};  // the old text counts no more
  }
  auto differs = [&changed](std::string_view key) {
    return std::any_of(changed.begin(), changed.end(), [key](const auto& one) {
      return one == key || one.starts_with(std::string(key) + ".");
    });
  };
  Undo release;
  if (spec.ssh_port != 0 && spec.ssh_port != meta.ssh_port) {
    meta.ssh_port = ports_.Reserve(uuid, spec.ssh_port, what);
    release.Add([this, port = meta.ssh_port] { ports_.Release(port); });
  }
  bool uefi = facts && facts->uefi;
  if (!core_.test_driver) {
    std::optional<Images::Base> base;
    const std::string arch = core_.ArchOf(spec);
    if (!KeepsDisk(uuid, meta) &&
        (differs("images") || differs("disk") || differs("arch") ||
         meta.disk_volume.empty())) {
      base = images_.Find(spec.images, arch);
      if (base) {
        MakeDisk(meta, uuid + ".disk", spec, *base, what);
      } else {
        if (!meta.disk_volume.empty()) core_.storage.Delete(meta.disk_volume);
        meta.disk_volume.clear();
        meta.image.clear();
      }
    } else if (differs("disk") && !meta.disk_volume.empty() &&
               spec.disk > core_.storage.Get(meta.disk_volume).capacity) {
      // A layer below or above may ask for less; a disk only grows.
      core_.storage.Resize(meta.disk_volume, spec.disk);
    }
    if (!base && !meta.image.empty()) {
      base = images_.Find({ImageSource{meta.image, "", ""}}, arch);
    }
    FreshenSeed(meta, uuid, name, spec);
    if (base) uefi = NeedsUefi(spec, &base->facts);
  }
  meta.applied = core_.StackOf(meta);
  Define(uuid, name, meta, spec, uefi, what);
  core_.ReadDone(uuid);
}

void Provision::GiveDisk(const std::string& uuid, const Images::Base& base,
                         std::string_view what) {
  Metadata meta = core_.Meta(uuid, what);
  if (!meta.disk_volume.empty()) return;
  const Spec spec = core_.SpecOf(meta);
  const auto facts = core_.Facts(uuid);
  MakeDisk(meta, uuid + ".disk", spec, base, what);
  Undo undo;
  undo.Add([this, volume = meta.disk_volume] { core_.storage.Delete(volume); });
  Define(uuid, facts->name, meta, spec, NeedsUefi(spec, &base.facts), what);
  undo.Keep();
  core_.ReadDone(uuid);
}

void Provision::StandOn(const std::string& uuid, const std::string& layer,
                        const std::string& what) {
  Metadata meta = core_.Meta(uuid, what);
  const auto facts = core_.Facts(uuid);
  const Spec spec = core_.SpecOf(meta);
  const std::string left = meta.disk_volume;
  meta.disk_volume = layers_.Add(uuid, layer, spec.disk, what);
  meta.booted = true;
  Undo undo;
  undo.Add([this, uuid, volume = meta.disk_volume] {
    layers_.DropSoon(uuid, {volume});
  });
  Define(uuid, facts->name, meta, spec, facts->uefi, what);
  undo.Keep();
  core_.ReadDone(uuid);
  layers_.DropSoon(uuid, {left});
}

void Provision::Reset(const std::string& uuid, const Images::Base* base,
                      const std::string& what) {
  Metadata meta = core_.Meta(uuid, what);
  const auto facts = core_.Facts(uuid);
  const Spec spec = core_.SpecOf(meta);
  const std::set<std::string> left = {meta.disk_volume, meta.seed_volume};
  // A new guest, with a host key of its own.
  meta.seed_digest.clear();
  meta.host_key.clear();
  meta.seeded = meta.booted = false;
  meta.guest_uid.reset();
  Undo undo;
  auto made = [&](const std::string& volume) {
    undo.Add([this, uuid, volume] { layers_.DropSoon(uuid, {volume}); });
  };
  if (base != nullptr) {
    MakeDisk(meta, layers_.NextName(uuid, "disk"), spec, *base, what);
  } else {
    meta.disk_volume = layers_.Add(uuid, meta.origin_layer, spec.disk, what);
  }
  made(meta.disk_volume);
  FreshenSeed(meta, uuid, facts->name, spec);
  made(meta.seed_volume);
  meta.applied = core_.StackOf(meta);
  meta.used = SystemClock::now();
  const bool uefi =
      base != nullptr ? NeedsUefi(spec, &base->facts) : facts->uefi;
  Define(uuid, facts->name, meta, spec, uefi, what);
  undo.Keep();
  core_.ReadDone(uuid);
  layers_.DropSoon(uuid, left);
}

void Provision::ForgetRejected(const std::string& uuid, Reply<Done> reply) {
  const std::string what = fmt::format(
      "Cannot remove config.yaml.rejected of '{}'", core_.NameOf(uuid));
  core_.Work(uuid, what, reply, [this, uuid, what] {
    core_.ChangeMeta(uuid, what, [](Metadata& meta) {
      meta.rejected.clear();
      meta.rejected_reason.clear();
    });
    core_.ReadDone(uuid);
  });
}

}  // namespace sbxfs
