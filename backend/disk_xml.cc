#include "backend/disk_xml.h"

#include <fmt/format.h>

#include "backend/disk_names.h"
#include "backend/xml.h"

namespace sbxfs {
namespace {

// Without its source.
xmlNode* AddDisk(xmlNode* devices, std::string_view type,
                 std::string_view format, std::string_view target) {
  xmlNode* disk = AddXml(devices, "disk", {{"type", type}, {"device", "disk"}});
  AddXml(disk, "driver",
         {{"name", "qemu"},
          {"type", format},
          {"cache", "writeback"},
          {"discard", "unmap"}});
  AddXml(disk, "target", {{"dev", target}, {"bus", "virtio"}});
  return disk;
}

void AddVolume(xmlNode* disk, std::string_view pool, std::string_view volume) {
  AddXml(disk, "source", {{"pool", pool}, {"volume", volume}});
}

void AddSeed(xmlNode* devices, const DomainInput& input) {
  xmlNode* disk =
      AddXml(devices, "disk", {{"type", "volume"}, {"device", "disk"}});
  AddXml(disk, "driver", {{"name", "qemu"}, {"type", "raw"}});
  AddVolume(disk, input.metadata.pool, input.seed_volume);
  // virtio here too: Debian's cloud kernel knows no AHCI.
  AddXml(disk, "target", {{"dev", kSeedDisk}, {"bus", "virtio"}});
  AddXml(disk, "readonly");
}

void AddRbd(xmlNode* disk, const DiskPlace& place, const std::string& volume) {
  xmlNode* source = AddXml(
      disk, "source",
      {{"protocol", "rbd"}, {"name", fmt::format("{}/{}", place.rbd, volume)}});
  for (const auto& [name, port] : place.hosts) {
    xmlNode* host = AddXml(source, "host", {{"name", name}});
    if (!port.empty() && port != "0") SetXml(host, "port", port);
  }
  if (place.user.empty()) return;
  xmlNode* secret = AddXml(AddXml(source, "auth", {{"username", place.user}}),
                           "secret", {{"type", "ceph"}});
  if (!place.secret_uuid.empty()) {
    SetXml(secret, "uuid", place.secret_uuid);
  } else {
    SetXml(secret, "usage", place.secret_usage);
  }
}

xmlNode* AddExtraDisk(xmlNode* devices, const DiskPlace& place,
                      const std::string& name, size_t index) {
  std::string target = "vdc";
  target.back() = static_cast<char>('c' + index);
  xmlNode* disk = AddDisk(devices, place.rbd.empty() ? "volume" : "network",
                          place.format, target);
  if (place.rbd.empty()) {
    AddVolume(disk, place.pool, DiskVolume(name));
  } else {
    AddRbd(disk, place, DiskVolume(name));
  }
  AddXml(disk, "serial", DiskSerial(name));
  return disk;
}

}  // namespace

void AddDisks(xmlNode* devices, const DomainInput& input) {
  if (!input.disk_volume.empty()) {
    AddVolume(AddDisk(devices, "volume", "qcow2", kRootDisk),
              input.metadata.pool, input.disk_volume);
  }
  if (!input.seed_volume.empty()) AddSeed(devices, input);
  for (size_t i = 0; i < input.extra_disks.size(); ++i) {
    AddExtraDisk(devices, input.disk_place, input.extra_disks[i], i);
  }
}

std::string ExtraDiskXml(const DiskPlace& place, const std::string& name,
                         size_t index) {
  const XmlDoc doc = NewXml("devices");
  return FormatXml(
      AddExtraDisk(xmlDocGetRootElement(doc.get()), place, name, index));
}

}  // namespace sbxfs
