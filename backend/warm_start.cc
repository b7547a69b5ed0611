// Warm's part for the sandboxes that go on from a template.
#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <algorithm>
#include <cerrno>
#include <thread>

#include "backend/disk_names.h"
#include "backend/disk_xml.h"
#include "backend/guest/boot.h"
#include "backend/guest_shell.h"
#include "backend/libvirt_error.h"
#include "backend/memory_stream.h"
#include "backend/save_image.h"
#include "backend/user_network.h"
#include "backend/util/log.h"
#include "backend/util/process_mark.h"
#include "backend/util/text.h"
#include "backend/warm.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// QEMU 8.2: a private mapping of a file that it may only read.
constexpr unsigned long kPrivateReadOnly = 8002000;
// A guest that was restored has an agent at once; QEMU tells so a moment later.
constexpr auto kAgentPatience = 30s;
constexpr std::chrono::milliseconds kAgentPause = 15ms;
constexpr std::chrono::milliseconds kLongPause = 320ms;
constexpr auto kBecomes = 120s;

std::string TimeNow() {
  return fmt::format("TIME={:.3f}\n",
                     std::chrono::duration<double>(
                         std::chrono::system_clock::now().time_since_epoch())
                         .count());
}

}  // namespace

void Warm::Start(const std::string& uuid, const Template& from,
                 const std::string& what) {
  provision_.StandOn(uuid, from.note.disk, what);
  const Metadata meta = core_.Meta(uuid, what);
  const auto facts = core_.Facts(uuid);
  const Spec spec = core_.SpecOf(meta);
  const ConnPtr connection = core_.connection.Get(what);
  unsigned long qemu = 0;
  virConnectGetVersion(connection.get(), &qemu);
  WarmInput input;
  input.name = facts->name;
  input.uuid = uuid;
  input.description = spec.description;
  input.metadata = meta;
  input.run.started = std::chrono::system_clock::now();
  input.run.becoming = true;
  input.run.starter = Trim(ThisProcessMark());
  if (!meta.origin_memory.empty()) {
    for (const std::string_view name : Split(meta.origin_secrets, ' ')) {
      if (IsSecretName(name)) input.run.secrets.emplace(name);
    }
  }
  input.console_path = core_.storage.PathOf(meta.console_volume);
  input.mac = MacFor(uuid);
  input.forwards = ForwardsOf(spec, meta.ssh_port);
  input.isolated = spec.isolated || !spec.egress.empty();
  input.memory_path = core_.storage.Path(from.note.memory);
  input.memory = from.memory;
  input.read_only = qemu >= kPrivateReadOnly;
  const std::string volume = layers_.NextName(uuid, "memory");
  core_.storage.Write(volume,
                      MakeSaveHead(WarmDomainXml(from.xml, input)) +
                          WithMac(from.rest, WarmMac(from.xml), input.mac));
  const int result = virDomainRestoreFlags(connection.get(),
                                           core_.storage.PathOf(volume).c_str(),
                                           nullptr, VIR_DOMAIN_SAVE_RUNNING);
  const std::optional<Error> error =
      result < 0 ? std::optional(LibvirtError(what)) : std::nullopt;
  layers_.DropSoon(uuid, {volume});
  if (error) throw *error;
  core_.Read(uuid);
}

// It takes a port each that is free in the template.
void Warm::PlugIn(const std::string& uuid, std::string_view xml,
                  const Spec& spec, const std::string& what) {
  const DomainFacts has = ParseDomain(xml);
  const DomainPtr domain = core_.Domain(uuid, what);
  const auto plug = [&](const std::string& device) {
    if (virDomainAttachDeviceFlags(domain.get(), device.c_str(),
                                   VIR_DOMAIN_AFFECT_LIVE) < 0) {
      ThrowLibvirt(what);
    }
  };
  for (size_t i = 0; i < spec.additional_disks.size(); ++i) {
    const std::string& name = spec.additional_disks[i].name;
    if (std::find(has.disk_volumes.begin(), has.disk_volumes.end(),
                  DiskVolume(name)) == has.disk_volumes.end()) {
      plug(ExtraDiskXml(core_.disk_storage.Place(), name, i));
    }
  }
  for (const NetworkNic& nic : core_.NicsOf(uuid, spec)) {
    if (std::none_of(has.nics.begin(), has.nics.end(),
                     [&](const auto& one) { return one.mac == nic.mac; })) {
      plug(NicXml(nic));
    }
  }
}

void Warm::Part(virDomainPtr domain) {
  const std::string xml = TakeString(
      virDomainManagedSaveGetXMLDesc(domain, VIR_DOMAIN_SAVE_IMAGE_XML_SECURE));
  const std::string own = WithOwnMemory(xml);
  if (own != xml && virDomainManagedSaveDefineXML(domain, own.c_str(), 0) < 0) {
    spdlog::warn(
        "{}", LibvirtError("Cannot part a guest from its template").Sentence());
  }
  virResetLastError();
}

std::string Warm::Attend(const std::string& uuid, const std::string& script,
                         const std::string& input, const std::string& what) {
  const auto begin = Clock::now();
  std::optional<int64_t> pid;
  for (auto pause = kAgentPause;; pause = std::min(pause * 2, kLongPause)) {
    const auto until = begin + (pid ? kBecomes : kAgentPatience);
    try {
      if (!pid) {
        pid = BeginPlainly(core_, uuid, TimeNow() + script, input);
        pause = kAgentPause;
      }
      std::this_thread::sleep_for(pause);
      // Once it has begun it must not begin a second time.
      if (const auto result = EndedByAgent(core_, uuid, *pid)) {
        if (result->status == 0) return result->output;
        throw Error(
            EPROTO,
            fmt::format("{}: the guest's shell ended with status {} ({})", what,
                        result->status, LastWords(result->output)));
      }
    } catch (const Error& error) {
      if (error.Errno() == EPROTO || error.Errno() == EHOSTDOWN ||
          Clock::now() > until || stopping_ ||
          virDomainIsActive(core_.Domain(uuid, what).get()) != 1) {
        throw;
      }
      if (!pid) std::this_thread::sleep_for(kAgentPause);
      continue;
    }
    if (stopping_ || Clock::now() > until) {
      throw Error(ETIMEDOUT, what + ": the guest does not become it in time");
    }
  }
}

// Another mount's daemon is at it, as far as can be told.
bool Warm::IsAnothers(const RunInfo& run) {
  return run.starter != Trim(ThisProcessMark()) &&
         !IsMarkOfTheDead(run.starter) &&
         std::chrono::system_clock::now() - run.started < 2 * kBecomes;
}

void Warm::Become(const std::string& uuid, const std::string& what) {
  const DomainPtr domain = core_.Domain(uuid, what);
  const std::string xml = TakeString(virDomainGetXMLDesc(domain.get(), 0));
  const RunInfo run = ParseRun(xml);
  if (!run.becoming || IsAnothers(run)) return;
  const auto note = ParseWarmNote(xml);
  const Metadata meta = core_.Meta(uuid, what);
  const std::string name = core_.Facts(uuid)->name;
  const Spec spec = core_.SpecOf(meta);
  const auto key = HostKeyOf(core_.storage.Read(meta.seed_volume, 0, 0));
  if (!key) throw Error(EIO, what + ": its seed has no host key");
  const SeedInput seed = provision_.SeedFor(meta, uuid, name, spec);
  const std::vector<std::string> keys = provision_.Keys(meta, uuid);
  std::string lines;
  for (const auto& line : keys) lines += line + "\n";
  std::string id = uuid;
  std::erase(id, '-');
  std::string script;
  const auto set = [&](const char* variable, std::string_view value) {
    script += fmt::format("{}={}\n", variable, ShellQuote(value));
  };
  set("NAME", seed.hostname);
  set("ID", uuid);
  set("MACHINE", id);
  set("LOGIN", meta.user);
  set("MAC", seed.mac);
  std::string nics;
  for (const SeedNic& nic : seed.nics) {
    nics += fmt::format("{} {} {}\n", nic.interface, nic.mac, nic.metric);
  }
  set("NICS", nics);
  set("PUBLIC", key->public_key);
  set("KEYS", lines);
  // One that goes on from a sandbox's memory has had all of that there.
  const bool settled =
      note && (note->image.empty() || note->documents == DocumentsOf(seed));
  set("BOOT", settled ? "" : "yes");
  script += kBecomeScript;
  if (!nics.empty()) {
    (void)Attend(uuid, "PART=names\n" + script, key->private_key, what);
    script.insert(0, "PART=rest\n");
  }
  {
    // libvirt has none of them for the guest yet: others may have ended them.
    const auto held =
        provision_.networks().Hold(uuid, name, core_.NicsOf(uuid, spec), what);
    PlugIn(uuid, xml, spec, what);
  }
  const BootReport report =
      ParseBootReport(Attend(uuid, script, key->private_key, what));
  const std::string digest = Provision::KeysDigest(keys);
  if (meta.guest_keys != digest || meta.guest_uid != report.uid) {
    core_.ChangeMeta(uuid, what, [&](Metadata& now) {
      now.guest_keys = digest;
      if (report.uid) now.guest_uid = report.uid;
    });
  }
  core_.ChangeRun(uuid, [settled](RunInfo& now) {
    now.becoming = false;
    now.settled = settled;
  });
  core_.Read(uuid);
}

}  // namespace sbxfs
