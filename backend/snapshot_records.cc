#include "backend/snapshot_records.h"

#include <libvirt/virterror.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <utility>

#include "backend/domain_xml.h"
#include "backend/libvirt_error.h"
#include "backend/snapshot_xml.h"

namespace sbxfs {
namespace {

std::vector<SnapshotPtr> Own(virDomainSnapshotPtr* raw, int count) {
  if (count < 0) ThrowLibvirt("Cannot list the snapshots");
  std::vector<SnapshotPtr> list(raw, raw + count);
  std::free(raw);
  return list;
}

std::vector<SnapshotPtr> ListSnapshots(virDomainPtr domain) {
  virDomainSnapshotPtr* raw = nullptr;
  int count = virDomainListAllSnapshots(domain, &raw,
                                        VIR_DOMAIN_SNAPSHOT_LIST_TOPOLOGICAL);
  if (count >= 0 || !LastLibvirtErrorIs(VIR_ERR_INVALID_ARG)) {
    return Own(raw, count);
  }
  // While one is being taken libvirt counts it, by its table, and has no name
  // for it, in its tree, which this fails by. From the roots it counts by the
  // tree, too.
  count =
      virDomainListAllSnapshots(domain, &raw, VIR_DOMAIN_SNAPSHOT_LIST_ROOTS);
  std::vector<SnapshotPtr> list;
  for (auto& root : Own(raw, count)) {
    count = virDomainSnapshotListAllChildren(
        root.get(), &raw,
        VIR_DOMAIN_SNAPSHOT_LIST_DESCENDANTS |
            VIR_DOMAIN_SNAPSHOT_LIST_TOPOLOGICAL);
    auto below = Own(raw, count);
    list.push_back(std::move(root));
    std::move(below.begin(), below.end(), std::back_inserter(list));
  }
  return list;
}

}  // namespace

SnapshotPtr LookupSnapshot(virDomainPtr domain, const std::string& name,
                           std::string_view what) {
  SnapshotPtr snapshot(virDomainSnapshotLookupByName(domain, name.c_str(), 0));
  if (snapshot == nullptr) ThrowLibvirt(what);
  return snapshot;
}

std::string SnapshotText(virDomainPtr domain, const std::string& name,
                         std::string_view what) {
  std::string text = TakeString(
      virDomainSnapshotGetXMLDesc(LookupSnapshot(domain, name, what).get(), 0));
  if (text.empty()) ThrowLibvirt(what);
  return text;
}

void RecordSnapshot(virDomainPtr domain, const std::string& xml, bool current,
                    std::string_view what) {
  unsigned flags = VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE;
  if (current) flags |= VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT;
  // That of a stopped domain has its own state, and no such flag.
  if (XmlText(xml, "/domainsnapshot/state") == "disk-snapshot") {
    flags |= VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY;
  }
  const SnapshotPtr made(
      virDomainSnapshotCreateXML(domain, xml.c_str(), flags));
  if (made == nullptr) ThrowLibvirt(what);
}

void ForgetSnapshot(virDomainPtr domain, const std::string& name,
                    std::string_view what) {
  const SnapshotPtr snapshot(
      virDomainSnapshotLookupByName(domain, name.c_str(), 0));
  if (snapshot == nullptr) {
    if (LastLibvirtErrorIs(VIR_ERR_NO_DOMAIN_SNAPSHOT)) return;
    ThrowLibvirt(what);
  }
  // libvirt 9 takes the overlay of one that is deleted for merged into what it
  // stood on, though only the record goes, and puts that in its place in every
  // record that follows (qemuSnapshotDeleteUpdateDisks): they would come to
  // stand for another state. An overlay that is none is in no record.
  std::string text = TakeString(virDomainSnapshotGetXMLDesc(snapshot.get(), 0));
  if (text.empty()) ThrowLibvirt(what);
  SnapshotEdit edit;
  edit.unlinked = true;
  text = EditSnapshot(text, edit);
  RecordSnapshot(domain, text, CurrentSnapshot(domain) == name, what);
  if (virDomainSnapshotDelete(snapshot.get(),
                              VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY) < 0) {
    ThrowLibvirt(what);
  }
}

std::vector<std::string> SnapshotTexts(virDomainPtr domain) {
  std::vector<std::string> texts;
  for (const auto& snapshot : ListSnapshots(domain)) {
    std::string text =
        TakeString(virDomainSnapshotGetXMLDesc(snapshot.get(), 0));
    if (text.empty()) {
      // It may have gone since. One that is left out for another reason would
      // have what stands on it stand on another.
      if (LastLibvirtErrorIs(VIR_ERR_NO_DOMAIN_SNAPSHOT)) continue;
      ThrowLibvirt("Cannot read a snapshot");
    }
    texts.push_back(std::move(text));
  }
  return texts;
}

std::string CurrentSnapshot(virDomainPtr domain) {
  const SnapshotPtr current(virDomainSnapshotCurrent(domain, 0));
  if (current == nullptr) {
    if (!LastLibvirtErrorIs(VIR_ERR_NO_DOMAIN_SNAPSHOT) &&
        !LastLibvirtErrorIs(VIR_ERR_NO_SUPPORT)) {
      ThrowLibvirt("Cannot read a snapshot");
    }
    return "";
  }
  return virDomainSnapshotGetName(current.get());
}

std::vector<Layer> RecordsOf(virDomainPtr domain) {
  const std::string current = CurrentSnapshot(domain);
  std::vector<Layer> records;
  for (auto& text : SnapshotTexts(domain)) {
    std::string name = ParseSnapshot(text).name;
    if (name == current) name.insert(0, "*");
    records.push_back({std::move(name), std::move(text)});
  }
  return records;
}

void RestoreRecords(virDomainPtr domain, const std::vector<Layer>& records,
                    std::string_view what) {
  for (const auto& [name, text] : records) {
    RecordSnapshot(domain, text, name.starts_with('*'), what);
  }
}

void ForgetRecords(virDomainPtr domain, std::string_view what) {
  const auto all = ListSnapshots(domain);
  // Children first: libvirt 9 changes the records of those that are left.
  for (auto one = all.rbegin(); one != all.rend(); ++one) {
    if (virDomainSnapshotDelete(one->get(),
                                VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY) < 0) {
      ThrowLibvirt(what);
    }
  }
}

}  // namespace sbxfs
