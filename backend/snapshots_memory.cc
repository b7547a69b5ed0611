// Snapshots' part for those that hold the guest's memory: a save image of
// libvirt's, in a volume beside the frozen layer.
#include <fmt/format.h>

#include <atomic>
#include <cerrno>
#include <chrono>

#include "backend/libvirt_error.h"
#include "backend/networks.h"
#include "backend/save_image.h"
#include "backend/snapshots.h"
#include "backend/user_network.h"
#include "backend/util/log.h"
#include "backend/warm_xml.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// While a mkdir waits the kernel holds the directory, two seconds at most.
constexpr auto kMemoryPatience = 1500ms;

// Who answers a mkdir: the one that took the snapshot, or the clock.
class Answer {
 public:
  // True when the clock comes first.
  bool TimeIsUp() {
    Phase running = kRunning;
    return phase_.compare_exchange_strong(running, kAnswered);
  }
  // It has ended; true when the clock came first.
  bool End() { return phase_.exchange(kEnded) == kAnswered; }
  [[nodiscard]] bool Ended() const { return phase_ == kEnded; }

 private:
  enum Phase { kRunning, kAnswered, kEnded };
  std::atomic<Phase> phase_ = kRunning;
};

}  // namespace

std::string Snapshots::WithoutMemory(const Sandbox& sandbox) {
  if (!sandbox.secrets.empty()) return "without its memory: it holds secrets";
  if (!sandbox.mounts.empty()) return "without its memory: it has mounts";
  return "";
}

std::string Snapshots::VolumeForMemory(const std::string& uuid,
                                       const std::string& what, Undo& undo) {
  const DomainPtr domain = core_.Domain(uuid, what);
  virDomainInfo info;
  if (virDomainGetInfo(domain.get(), &info) < 0) ThrowLibvirt(what);
  const uint64_t room = core_.storage.Info().available;
  if (const uint64_t most = info.memory * 1024; room < most) {
    throw Error(ENOSPC,
                fmt::format("{}: its memory may take {} bytes, and the pool "
                            "'{}' has {} left; remove something, or set "
                            "snapshotMemory to false",
                            what, most, core_.options.pool, room));
  }
  const std::string volume = layers_.NextName(uuid, "memory");
  core_.storage.Write(volume, "");
  undo.Add([this, uuid, volume] { layers_.DropSoon(uuid, {volume}); });
  return core_.storage.Path(volume);
}

void Snapshots::TakeLong(const SandboxPtr& sandbox, const std::string& tag,
                         const std::string& what, const Reply<Done>& reply) {
  const std::string& uuid = sandbox->uuid;
  Snapshot taking;
  taking.tag = tag;
  taking.parent = sandbox->snapshot;
  taking.kind = "taking";
  taking.config = sandbox->config;
  taking.created = std::chrono::system_clock::now();
  if (const auto facts = core_.Facts(uuid)) taking.layer = facts->disk;
  core_.catalog.Change(uuid, [&](Catalog::Overlay& overlay) {
    overlay.progress = fmt::format("taking snapshot '{}' with its memory", tag);
  });
  const auto answer = std::make_shared<Answer>();
  core_.timer.After(kMemoryPatience, [this, uuid, taking, answer, reply] {
    if (!answer->TimeIsUp()) return;
    core_.catalog.Change(uuid, [&](Catalog::Overlay& overlay) {
      if (!answer->Ended()) overlay.taking = taking;
    });
    reply.Ok();
  });
  const auto ended = [&] {
    const bool early = answer->End();
    core_.catalog.Change(uuid, [](Catalog::Overlay& overlay) {
      overlay.taking.reset();
      overlay.progress.clear();
    });
    return early;
  };
  try {
    TakeNow(uuid, tag, "", what, /*quiesced=*/false, /*memory=*/true);
  } catch (...) {
    const Error error = CurrentError();
    if (ended()) core_.catalog.ReportEnd(uuid, &error);
    throw error;
  }
  if (!ended() && reply.Answered()) DropNow(uuid, tag, what);
}

bool Snapshots::HasMemory(const SnapshotFacts& target) {
  const std::string volume = LastPart(target.memory_file);
  return !UuidIn(volume).empty() && core_.storage.Has(volume);
}

// libvirt compares the name with that of the XML it is given, and takes none
// that is another than what was saved.
void Snapshots::Rename(const std::string& volume, const std::string& name) {
  const std::string header = core_.storage.Read(volume, 0, kSaveHeader);
  const std::string head = core_.storage.Read(volume, 0, SaveHeadSize(header));
  const std::string fresh =
      WithSavedXml(head, SavedDomain(SavedXml(head), name));
  const auto upload = core_.storage.Upload(volume);
  upload->Send(fresh);
  upload->Finish();
}

void Snapshots::Resume(const std::string& uuid, const SnapshotFacts& target,
                       bool paused, const std::string& what) {
  const Metadata meta = core_.Meta(uuid, what);
  const ConnPtr connection = core_.connection.Get(what);
  const std::string name = core_.Facts(uuid)->name;
  const std::string path = target.memory_file;
  auto saved = [&] {
    std::string xml = TakeString(virDomainSaveImageGetXMLDesc(
        connection.get(), path.c_str(), VIR_DOMAIN_SAVE_IMAGE_XML_SECURE));
    if (xml.empty()) ThrowLibvirt(what);
    return xml;
  };
  std::string xml = saved();
  if (XmlText(xml, "/domain/name") != name) {
    Rename(LastPart(path), name);
    xml = saved();
  }
  const std::string wanted = WithOwnMemory(WithForwards(
      DomainOnLayer(xml, meta), ForwardsOf(core_.SpecOf(meta), meta.ssh_port)));
  try {
    // Those that it was in then may have ended since.
    const auto held =
        Networks(core_).Hold(uuid, name, ParseDomain(wanted).nics, what);
    if (virDomainRestoreFlags(
            connection.get(), path.c_str(), wanted.c_str(),
            paused ? VIR_DOMAIN_SAVE_PAUSED : VIR_DOMAIN_SAVE_RUNNING) < 0) {
      ThrowLibvirt(what);
    }
  } catch (const Error& error) {
    throw Error(error.Errno(), error.Sentence() +
                                   "; its disk was put back, and start boots "
                                   "it from that");
  }
  core_.ReadDone(uuid);
}

}  // namespace sbxfs
