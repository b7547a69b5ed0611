#include "backend/foreign_disk.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>
#include <thread>

#include "backend/guest_freeze.h"
#include "backend/libvirt_error.h"
#include "backend/util/error.h"
#include "backend/xml.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// Null when it has none.
const xmlNode* FirstDisk(const xmlNode* domain) {
  for (const xmlNode* disk : XmlChildren(XmlChild(domain, "devices"))) {
    if (XmlName(disk) != "disk") continue;
    const std::string device = XmlAttribute(disk, "device");
    if (device.empty() || device == "disk") return disk;
  }
  return nullptr;
}

std::string BackupXml(const std::string& target, const std::string& path) {
  const XmlDoc doc = NewXml("domainbackup");
  xmlNode* root = xmlDocGetRootElement(doc.get());
  SetXml(root, "mode", "push");
  // Disks that are not listed are left out.
  xmlNode* disk =
      AddXml(AddXml(root, "disks"), "disk",
             {{"name", target}, {"backup", "yes"}, {"type", "file"}});
  AddXml(disk, "driver", {{"type", "qcow2"}});
  AddXml(disk, "target", {{"file", path}});
  return FormatXml(root);
}

struct Parameters {
  virTypedParameterPtr all = nullptr;
  int count = 0;
  ~Parameters() { virTypedParamsFree(all, count); }
};

// Until the job has ended; how.
void AwaitBackup(virDomainPtr domain, std::string_view what) {
  for (auto pause = 20ms;; pause = std::min(pause * 2, 500ms)) {
    std::this_thread::sleep_for(pause);
    virDomainJobInfo now;
    if (virDomainGetJobInfo(domain, &now) < 0) ThrowLibvirt(what);
    if (now.type == VIR_DOMAIN_JOB_NONE) break;
  }
  Parameters said;
  int type = VIR_DOMAIN_JOB_NONE;
  if (virDomainGetJobStats(domain, &type, &said.all, &said.count,
                           VIR_DOMAIN_JOB_STATS_COMPLETED) < 0) {
    ThrowLibvirt(what);
  }
  if (type == VIR_DOMAIN_JOB_COMPLETED) return;
  const char* reason = nullptr;
  virTypedParamsGetString(said.all, said.count, VIR_DOMAIN_JOB_ERRMSG, &reason);
  throw Error(EIO, fmt::format("{}: the copying of its disk ended early{}{}; "
                               "try again",
                               what, reason == nullptr ? "" : ": ",
                               reason == nullptr ? "" : reason));
}

}  // namespace

VolumePtr ForeignDisk(virConnectPtr connection, std::string_view xml,
                      std::string_view what) {
  const XmlDoc doc = ParseXml(xml);
  const xmlNode* source = XmlChild(
      FirstDisk(doc ? xmlDocGetRootElement(doc.get()) : nullptr), "source");
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

std::string ForeignTarget(std::string_view xml, std::string_view what) {
  const XmlDoc doc = ParseXml(xml);
  const std::string target = XmlAttribute(
      XmlChild(FirstDisk(doc ? xmlDocGetRootElement(doc.get()) : nullptr),
               "target"),
      "dev");
  if (!target.empty()) return target;
  throw Error(EOPNOTSUPP, fmt::format("{}: it has no disk", what));
}

void BackUpDisk(virDomainPtr domain, const std::string& target,
                const std::string& path, bool agent, std::string_view what) {
  {
    std::optional<GuestFreeze> frozen;
    if (agent) frozen.emplace(domain);
    // QEMU copies what is overwritten from now on before that happens.
    if (virDomainBackupBegin(domain, BackupXml(target, path).c_str(), nullptr,
                             VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL) < 0) {
      ThrowLibvirt(what);
    }
  }
  try {
    AwaitBackup(domain, what);
  } catch (...) {
    // Ended, and another's job may have begun.
    const std::string now = TakeString(virDomainBackupGetXMLDesc(domain, 0));
    if (now.find(path) != std::string::npos) virDomainAbortJob(domain);
    virResetLastError();
    throw;
  }
}

}  // namespace sbxfs
