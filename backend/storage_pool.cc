// Which pool the volumes are in, and what can be done in it.
#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "backend/domain_xml.h"
#include "backend/libvirt_error.h"
#include "backend/storage.h"

namespace sbxfs {
namespace {

constexpr std::string_view kRbd = "rbd";

// libvirt's backend for volume groups has no virStorageVolResize, and the one
// for RADOS wipes nothing, since what was never written reads as zeros there.
// Of the other types some have no way to make a volume (iscsi, scsi, mpath),
// and in `disk` a volume's name is not ours to choose.
constexpr std::array<PoolKind, 5> kKinds = {{
    {"dir", /*files=*/true, /*thick=*/false, /*grows=*/true},
    {"fs", /*files=*/true, /*thick=*/false, /*grows=*/true},
    {"netfs", /*files=*/true, /*thick=*/false, /*grows=*/true},
    {"logical", /*files=*/false, /*thick=*/true, /*grows=*/false},
    {kRbd, /*files=*/false, /*thick=*/false, /*grows=*/true},
}};

std::string DefaultPath(virConnectPtr connection, const std::string& home) {
  const std::string uri = TakeString(virConnectGetURI(connection));
  const auto end = uri.find('?');
  if (!uri.substr(0, end).ends_with("/session")) {
    return "/var/lib/libvirt/sbxfs";
  }
  return home.empty() ? "" : home + "/libvirt";
}

DiskPlace PlaceIn(std::string_view xml, const std::string& pool,
                  const PoolKind& kind) {
  DiskPlace place;
  place.pool = pool;
  place.format = kind.files ? "qcow2" : "raw";
  if (kind.type != kRbd) return place;
  const XmlDoc doc = ParseXml(xml);
  const xmlNode* source =
      XmlChild(doc ? xmlDocGetRootElement(doc.get()) : nullptr, "source");
  place.rbd = XmlContent(XmlChild(source, "name"));
  for (const xmlNode* node : XmlChildren(source)) {
    if (XmlName(node) != "host") continue;
    place.hosts.emplace_back(XmlAttribute(node, "name"),
                             XmlAttribute(node, "port"));
  }
  const xmlNode* auth = XmlChild(source, "auth");
  const xmlNode* secret = XmlChild(auth, "secret");
  place.user = XmlAttribute(auth, "username");
  place.secret_uuid = XmlAttribute(secret, "uuid");
  place.secret_usage = XmlAttribute(secret, "usage");
  return place;
}

std::string CannotUse(const std::string& pool) {
  return fmt::format("Cannot use the pool '{}'", pool);
}

}  // namespace

Storage::Storage(Connection& connection, std::string pool)
    : connection_(connection), pool_(std::move(pool)), kind_(kKinds.data()) {}

void Storage::Ensure(virConnectPtr connection, const std::string& home) {
  const std::string what = CannotUse(pool_);
  PoolPtr pool(virStoragePoolLookupByName(connection, pool_.c_str()));
  if (pool == nullptr) {
    const std::string path = DefaultPath(connection, home);
    if (path.empty()) {
      throw Error(EOPNOTSUPP,
                  what +
                      ": there is none, and its place on another machine's "
                      "session is not known; define one there with virsh "
                      "pool-define-as");
    }
    pool.reset(
        virStoragePoolDefineXML(connection, PoolXml(pool_, path).c_str(), 0));
    if (pool == nullptr) {
      // Another mount may have made it just now.
      pool.reset(virStoragePoolLookupByName(connection, pool_.c_str()));
      if (pool == nullptr) ThrowLibvirt(what);
    } else if (virStoragePoolBuild(pool.get(), 0) < 0) {
      const Error error = LibvirtError(what);
      virStoragePoolUndefine(pool.get());
      throw error;
    }
    virStoragePoolSetAutostart(pool.get(), 1);
  }
  Take(pool.get(), /*files=*/true, what);
}

void Storage::Find(virConnectPtr connection) {
  const std::string what = CannotUse(pool_);
  const PoolPtr pool(virStoragePoolLookupByName(connection, pool_.c_str()));
  if (pool == nullptr) {
    if (!LastLibvirtErrorIs(VIR_ERR_NO_STORAGE_POOL)) ThrowLibvirt(what);
    throw Error(ENOENT,
                what +
                    " for additional disks: there is none; define it with "
                    "virsh pool-define-as, or mount without -o disk_pool=");
  }
  Take(pool.get(), /*files=*/false, what);
}

void Storage::Take(virStoragePoolPtr pool, bool files, std::string_view what) {
  const std::string xml = TakeString(virStoragePoolGetXMLDesc(pool, 0));
  const std::string type = XmlText(xml, "/pool/@type");
  const auto* kind =
      std::find_if(kKinds.begin(), kKinds.end(),
                   [&](const PoolKind& one) { return one.type == type; });
  if (kind == kKinds.end()) {
    throw Error(EOPNOTSUPP,
                fmt::format("{}: it is of type {}, in which no volumes can be "
                            "made by name; name one of type dir, fs or netfs{}",
                            what, type, files ? "" : ", logical or rbd"));
  }
  if (files && !kind->files) {
    throw Error(
        EOPNOTSUPP,
        fmt::format("{}: it is of type {}, which keeps no files, and a "
                    "sandbox's disk is a chain of qcow2 files; name one of "
                    "type dir, fs or netfs by -o pool=, and this one by "
                    "-o disk_pool=, for additional disks",
                    what, type));
  }
  kind_ = kind;
  {
    MutexLock lock(mutex_);
    directory_ = XmlText(xml, "/pool/target/path") + '/';
    place_ = PlaceIn(xml, pool_, *kind);
  }
  if (virStoragePoolIsActive(pool) == 1) return;
  if (virStoragePoolCreate(pool, 0) < 0 && virStoragePoolIsActive(pool) != 1) {
    ThrowLibvirt(what);
  }
}

DiskPlace Storage::Place() const {
  MutexLock lock(mutex_);
  return place_;
}

std::string Storage::PathOf(std::string_view name) const {
  MutexLock lock(mutex_);
  return directory_ + std::string(name);
}

void Storage::CreateDisk(const std::string& name, uint64_t capacity) {
  const PoolKind& kind = Kind();
  if (!kind.thick) {
    Create(name, Place().format, capacity);
    return;
  }
  const std::string what = fmt::format("Cannot make volume '{}'", name);
  // LVM's own words for it name a child process and its exit status.
  CheckRoom(what, capacity);
  // With less allocated than its capacity libvirt makes a sparse volume, which
  // is a snapshot that becomes useless once it is full.
  CreateXml(name, VolumeXml(name, "raw", capacity, capacity, "", ""), capacity);
  // What was in its place before is somebody else's: lvcreate(8) wipes the
  // first 4 KiB alone.
  FillOrDelete(name, [&] {
    if (virStorageVolWipe(Lookup(name, what).get(), 0) < 0) ThrowLibvirt(what);
  });
}

}  // namespace sbxfs
