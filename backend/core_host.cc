// Core::LearnHost: what the hypervisor at the other end is and can do.
#include <fmt/format.h>
#include <libvirt/virterror.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <vector>

#include "backend/core.h"
#include "backend/libvirt_error.h"
#include "backend/util/log.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

constexpr unsigned long kVirtiofs = 11000000;

struct Accelerator {
  bool kvm = false;
  std::string text;  // for people
  std::string arch;
};

// Whom QEMU runs as: "+64055:+64055" where libvirt gives it a user of its own.
uid_t GuestUid(const std::string& caps) {
  const std::string label =
      XmlText(caps, "/capabilities/host/secmodel[model='dac']/baselabel[1]");
  const auto uid = ParseNumber(
      label.substr(label.starts_with('+') ? 1 : 0, label.find(':') - 1));
  return uid ? static_cast<uid_t>(*uid) : geteuid();
}

// /dev/kvm opens, and libvirt lists kvm, on machines whose processors have no
// virtualisation left to give: guests then hang after the boot loader. The
// processor's own features are the sign to go by.
Accelerator ProbeAccelerator(virConnectPtr conn, const std::string& caps) {
  const std::string arch = XmlText(caps, "/capabilities/host/cpu/arch");
  if (arch.empty()) ThrowLibvirt("Cannot ask for the hypervisor's abilities");
  if (XmlText(caps, "/capabilities/guest/arch/domain[@type='kvm']/@type")
          .empty()) {
    return {false,
            "tcg: this hypervisor has no KVM (no /dev/kvm, or no right "
            "to open it)",
            arch};
  }
  if (arch != "x86_64") return {true, "kvm", arch};
  // Models hide features: svm is in AMD's, so have the model spelled out.
  const std::string cpu = [&caps] {
    const auto begin = caps.find("<cpu>");
    const auto end = caps.find("</cpu>");
    if (begin == std::string::npos || end == std::string::npos) {
      return std::string();
    }
    return caps.substr(begin, end + 6 - begin);
  }();
  const char* cpus[] = {cpu.c_str()};
  const std::string full = TakeString(virConnectBaselineCPU(
      conn, cpus, 1, VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES));
  virResetLastError();
  const std::string& features = full.empty() ? cpu : full;
  if (features.find("name='vmx'") == std::string::npos &&
      features.find("name='svm'") == std::string::npos) {
    return {false,
            "tcg: /dev/kvm is there, but the processor offers neither "
            "vmx nor svm, so that guests under KVM would hang",
            arch};
  }
  return {true, "kvm", arch};
}

// What guests can still have: caches give way to them.
uint64_t FreeMemory(virConnectPtr conn) {
  int count = 0;
  constexpr int kAll = VIR_NODE_MEMORY_STATS_ALL_CELLS;
  virNodeGetMemoryStats(conn, kAll, nullptr, &count, 0);
  std::vector<virNodeMemoryStats> stats(static_cast<size_t>(count));
  uint64_t kibibytes = 0;
  if (count > 0 &&
      virNodeGetMemoryStats(conn, kAll, stats.data(), &count, 0) == 0) {
    for (const auto& one : stats) {
      const std::string_view field = one.field;
      if (field == VIR_NODE_MEMORY_STATS_FREE ||
          field == VIR_NODE_MEMORY_STATS_BUFFERS ||
          field == VIR_NODE_MEMORY_STATS_CACHED) {
        kibibytes += one.value;
      }
    }
  }
  return kibibytes != 0 ? kibibytes * 1024 : virNodeGetFreeMemory(conn);
}

// A virtiofsd of a system's libvirt has root's rights, and then takes no
// idmap. The others learned to serve users with libvirt 10, and to serve
// read-only with 11.
std::string WhyNoVirtiofs(virConnectPtr conn, const LibvirtUri& uri,
                          unsigned long library, const std::string& arch) {
  if (uri.path != "/session") {
    return "a virtiofsd of this libvirt has root's rights; use "
           "qemu:///session";
  }
  if (library < kVirtiofs) {
    return fmt::format("libvirt {} has no read-only virtiofs of a user, {} has",
                       LibvirtVersion(library), LibvirtVersion(kVirtiofs));
  }
  const std::string caps = TakeString(virConnectGetDomainCapabilities(
      conn, nullptr, arch.c_str(), nullptr, "qemu", 0));
  virResetLastError();
  if (XmlText(caps, "//filesystem/enum[@name='driverType']/value[.='virtiofs']")
          .empty()) {
    return "this QEMU has no virtiofs";
  }
  // QEMU's own list of such servers, which libvirt reads.
  std::error_code error;
  const std::filesystem::directory_iterator servers(
      "/usr/share/qemu/vhost-user", error);
  const bool there =
      std::any_of(begin(servers), end(servers), [](const auto& one) {
        return one.path().filename().native().find("virtiofsd") !=
               std::string::npos;
      });
  if (!there) return "virtiofsd is not installed";
  if (access("/usr/bin/newuidmap", X_OK) != 0) {
    return "newuidmap, which a virtiofsd without root's rights needs, is not "
           "installed";
  }
  return "";
}

// What is to be said of other libvirts that keep volumes in the pool's place.
std::string MarkPool(Storage& storage, const std::string& uuid) {
  std::string notes;
  try {
    storage.Mark(uuid);
    for (const auto& other : Storage::SharedWith(uuid, storage.Names())) {
      notes += fmt::format(
          "note: another libvirt has a pool of UUID {0} in the same place: "
          "volumes that no sandbox here has may be those of its sandboxes, and "
          "stay; when it is no more: virsh vol-delete --pool {1} "
          "hypervisor.{0}\n",
          other, storage.Pool());
    }
  } catch (const Error& error) {
    spdlog::warn("{}", error.Sentence());  // a pool that is full
  }
  return notes;
}

}  // namespace

void Core::LearnHost() {
  const ConnPtr mine = connection.Get("Cannot ask for the hypervisor's kind");
  const virConnectPtr conn = mine.get();
  const char* type = virConnectGetType(conn);
  test_driver = type != nullptr && std::string_view(type) == "TEST";
  const Route route = connection.LastRoute();
  local = route.uri.Local();
  relayed = !route.ssh.empty();
  {
    MutexLock lock(mutex_);
    way_ = route;
  }

  Host learned;
  unsigned long hypervisor = 0;
  unsigned long library = 0;
  virConnectGetVersion(conn, &hypervisor);
  virConnectGetLibVersion(conn, &library);
  learned.hypervisor =
      fmt::format("{} {}, libvirt {}", type == nullptr ? "unknown" : type,
                  LibvirtVersion(hypervisor), LibvirtVersion(library));
  virNodeInfo node;
  if (virNodeGetInfo(conn, &node) == 0) {
    learned.cpus = node.cpus;
    learned.memory = static_cast<uint64_t>(node.memory) * 1024;
  }
  learned.memory_free = FreeMemory(conn);
  PoolRoom room;
  if (test_driver) {
    learned.accelerator = "none: the test driver runs no guest";
    learned.notes =
        "note: test driver: no disk, seed, image or document is kept\n";
  } else {
    const std::string caps = TakeString(virConnectGetCapabilities(conn));
    const Accelerator accelerator = ProbeAccelerator(conn, caps);
    guest_uid = GuestUid(caps);
    no_networks = route.uri.path == "/session"
                      ? "qemu:///session has no networks; use qemu:///system"
                      : "";
    no_virtiofs = WhyNoVirtiofs(conn, route.uri, library, accelerator.arch);
    kvm = accelerator.kvm;
    cpu_model =
        fmt::format("{} {}", XmlText(caps, "/capabilities/host/cpu/model"),
                    XmlText(caps, "/capabilities/host/cpu/microcode/@version"));
    arch = accelerator.arch;
    learned.accelerator = accelerator.text;
    storage.Ensure(conn, local ? data_dir : "");
    if (other_pool) other_pool->Find(conn);
    room = LookAtPools();
    pool_uuid = room.pool.uuid;
    learned.notes += MarkPool(storage, pool_uuid);
    if (!kvm) learned.notes += "note: " + accelerator.text + "\n";
    learned.notes += NoteLibvirtVersion(library);
  }
  if (!route.warning.empty()) learned.notes += route.warning + "\n";
  virResetLastError();
  catalog.ChangeHost([&](Host& host) {
    host.uri = connection.Uri();
    host.route = route.explanation;
    host.hypervisor = learned.hypervisor;
    host.cpus = learned.cpus;
    host.memory = learned.memory;
    host.memory_free = learned.memory_free;
    host.accelerator = learned.accelerator;
    host.notes = learned.notes;
    host.pool = storage.Pool();
    host.disk_pool = disk_storage.Pool();
    room.Show(host);
    host.pool_uuid = pool_uuid;
    host.identity_file = data_dir + "/id_ed25519";
    host.ssh_ca = ssh_ca;
    host.uid = geteuid();
    host.gid = getegid();
  });
}

void Core::LearnCapacity() {
  const ConnPtr conn = connection.Get("Cannot ask for the hypervisor's memory");
  const uint64_t free = FreeMemory(conn.get());
  virResetLastError();
  const PoolRoom room = test_driver ? PoolRoom() : LookAtPools();
  catalog.ChangeHost([&](Host& host) {
    host.memory_free = free;
    room.Show(host);
  });
}

PoolRoom Core::LookAtPools() {
  PoolRoom room;
  room.pool = storage.Info();
  room.disks = other_pool ? other_pool->Info() : room.pool;
  return room;
}

void PoolRoom::Show(Host& host) const {
  host.pool_size = pool.size;
  host.pool_available = pool.available;
  host.disk_pool_size = disks.size;
  host.disk_pool_available = disks.available;
}

}  // namespace sbxfs
