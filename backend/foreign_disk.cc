#include "backend/foreign_disk.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <cerrno>
#include <string>

#include "backend/libvirt_error.h"
#include "backend/util/error.h"
#include "backend/xml.h"

namespace sbxfs {
namespace {

// Its <source>; null when it has no disk.
const xmlNode* FirstSource(const xmlNode* domain) {
  for (const xmlNode* disk : XmlChildren(XmlChild(domain, "devices"))) {
    if (XmlName(disk) != "disk") continue;
    const std::string device = XmlAttribute(disk, "device");
    if (device.empty() || device == "disk") return XmlChild(disk, "source");
  }
  return nullptr;
}

}  // namespace

VolumePtr ForeignDisk(virConnectPtr connection, std::string_view xml,
                      std::string_view what) {
  const XmlDoc doc = ParseXml(xml);
  const xmlNode* source =
      FirstSource(doc ? xmlDocGetRootElement(doc.get()) : nullptr);
  const std::string volume = XmlAttribute(source, "volume");
  std::string path = XmlAttribute(source, "file");
  if (path.empty()) path = XmlAttribute(source, "dev");
  if (volume.empty() && path.empty()) {
    throw Error(EOPNOTSUPP,
                fmt::format("{}: it has no disk that is a volume, a file or a "
                            "device of the hypervisor; copy what it has into "
                            ".host/images",
                            what));
  }
  if (!volume.empty()) {
    const PoolPtr pool(virStoragePoolLookupByName(
        connection, XmlAttribute(source, "pool").c_str()));
    if (pool == nullptr) ThrowLibvirt(what);
    VolumePtr found(virStorageVolLookupByName(pool.get(), volume.c_str()));
    if (found == nullptr) ThrowLibvirt(what);
    return found;
  }
  VolumePtr found(virStorageVolLookupByPath(connection, path.c_str()));
  if (found != nullptr) return found;
  if (!LastLibvirtErrorIs(VIR_ERR_NO_STORAGE_VOL)) ThrowLibvirt(what);
  throw Error(
      ENOENT,
      fmt::format("{}: its disk '{}' is in no active pool of that libvirt, so "
                  "that libvirt cannot copy it; 'virsh pool-create-as NAME dir "
                  "--target {}' makes one, or copy the file into .host/images",
                  what, path, path.substr(0, path.rfind('/'))));
}

}  // namespace sbxfs
