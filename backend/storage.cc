#include "backend/storage.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "backend/domain_xml.h"
#include "backend/libvirt_error.h"
#include "backend/util/log.h"
#include "backend/util/text.h"
#include "backend/xml.h"

namespace sbxfs {
namespace {

constexpr std::string_view kMark = "hypervisor.";
constexpr char kList[] = "Cannot list the pool";
constexpr int kHalfMade = 25;  // tries
constexpr size_t kChunk = 256 * 1024;
constexpr size_t kHole = 64 * 1024;  // fewer zeros are sent

// "1699999999.123456789"
Time ParseTimestamp(const std::string& text) {
  const double seconds = std::strtod(text.c_str(), nullptr);
  return Time(std::chrono::duration_cast<Time::duration>(
      std::chrono::duration<double>(seconds)));
}

uint64_t Bytes(const xmlNode* node) {
  return ParseNumber(XmlContent(node)).value_or(0);
}

// By one call: a pool of thousands is described as a whole.
Volume Describe(virStorageVolPtr volume, std::string_view what) {
  const std::string xml = TakeString(virStorageVolGetXMLDesc(volume, 0));
  if (xml.empty()) ThrowLibvirt(what);
  const XmlDoc doc = ParseXmlOf(xml, "volume");
  const xmlNode* root = xmlDocGetRootElement(doc.get());
  const xmlNode* target = XmlChild(root, "target");
  const xmlNode* backing = XmlChild(root, "backingStore");
  Volume described;
  described.name = virStorageVolGetName(volume);
  described.capacity = Bytes(XmlChild(root, "capacity"));
  described.allocation = Bytes(XmlChild(root, "allocation"));
  described.size = Bytes(XmlChild(root, "physical"));
  if (described.size == 0) described.size = described.capacity;
  described.modified = ParseTimestamp(
      XmlContent(XmlChild(XmlChild(target, "timestamps"), "mtime")));
  described.backing = XmlContent(XmlChild(backing, "path"));
  described.backing_format = XmlAttribute(XmlChild(backing, "format"), "type");
  described.format = XmlAttribute(XmlChild(target, "format"), "type");
  return described;
}

// For a sentence: in the unit that leaves it two digits or more.
std::string Rounded(uint64_t bytes) {
  uint64_t unit = 1024;
  while (bytes / unit >= 10 * 1024) unit *= 1024;
  return FormatSize((bytes + unit - 1) / unit * unit);
}

// A stream whose connection ends speaks of an error of its own.
[[noreturn]] void ThrowStream(virConnectPtr connection, std::string_view what) {
  const Error error = LibvirtError(what);
  if (virConnectIsAlive(connection) == 1) throw error;
  throw Error(EHOSTDOWN, fmt::format("{}: the connection to libvirt is lost; "
                                     "see .host/connection",
                                     what));
}

// Has libvirt look at the pool's files and their file system. It refuses, by an
// internal error, while another volume is made or removed, which passes.
bool Refreshed(virStoragePoolPtr pool) {
  for (int tries = 0; tries < 25; ++tries) {
    if (virStoragePoolRefresh(pool, 0) == 0) return true;
    if (!LastLibvirtErrorIs(VIR_ERR_INTERNAL_ERROR)) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return false;
}

// Calls `call`, which is false for a failure; once more where somebody had
// stopped the pool, or unmounted it, which is started again then.
bool InPool(virStoragePoolPtr pool, const std::function<bool()>& call) {
  if (call()) return true;
  return LastLibvirtErrorIs(VIR_ERR_OPERATION_INVALID) &&
         virStoragePoolIsActive(pool) == 0 &&
         (virStoragePoolCreate(pool, 0) == 0 ||
          virStoragePoolIsActive(pool) == 1) &&
         call();
}

VolumePtr FindIn(virStoragePoolPtr pool, const std::string& name) {
  VolumePtr volume;
  (void)InPool(pool, [&] {
    volume.reset(virStorageVolLookupByName(pool, name.c_str()));
    return volume != nullptr;
  });
  return volume;
}

}  // namespace

VolumeUpload::~VolumeUpload() {
  if (stream_ != nullptr) virStreamAbort(stream_.get());
}

void VolumeUpload::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::string_view piece = bytes.substr(0, kChunk);
    auto sent = static_cast<int>(piece.size());
    if (piece.size() >= kHole && piece.find_first_not_of('\0') == piece.npos) {
      if (virStreamSendHole(stream_.get(), sent, 0) < 0) sent = -1;
    } else {
      sent = virStreamSend(stream_.get(), piece.data(), piece.size());
    }
    if (sent < 0) ThrowStream(connection_.get(), what_);
    bytes.remove_prefix(sent);
  }
}

void VolumeUpload::Finish() {
  const StreamPtr stream = std::move(stream_);
  if (virStreamFinish(stream.get()) < 0) ThrowStream(connection_.get(), what_);
}

PoolPtr Storage::Open(virConnectPtr connection, std::string_view what) {
  PoolPtr pool(virStoragePoolLookupByName(connection, pool_.c_str()));
  if (pool == nullptr) ThrowLibvirt(what);
  return pool;
}

VolumePtr Storage::Lookup(virConnectPtr connection, const std::string& name,
                          std::string_view what) {
  const PoolPtr pool = Open(connection, what);
  VolumePtr volume = FindIn(pool.get(), name);
  if (volume != nullptr) return volume;
  // A file that came without libvirt is known after a refresh alone.
  const Error error = LibvirtError(what);
  if (Refreshed(pool.get())) {
    volume.reset(virStorageVolLookupByName(pool.get(), name.c_str()));
  }
  if (volume == nullptr) throw error;
  return volume;
}

PoolInfo Storage::Info() {
  constexpr char kWhat[] = "Cannot ask for the pool's size";
  const ConnPtr connection = connection_.Get(kWhat);
  const PoolPtr pool = Open(connection.get(), kWhat);
  virStoragePoolInfo info;
  if (virStoragePoolGetInfo(pool.get(), &info) < 0) ThrowLibvirt(kWhat);
  char uuid[VIR_UUID_STRING_BUFLEN] = "";
  virStoragePoolGetUUIDString(pool.get(), uuid);
  const std::string path = XmlText(
      TakeString(virStoragePoolGetXMLDesc(pool.get(), 0)), "/pool/target/path");
  return {info.capacity, info.available, uuid, path + '/'};
}

std::vector<VolumePtr> Storage::ListAll(std::string_view what) {
  const ConnPtr connection = connection_.Get(what);
  const PoolPtr pool = Open(connection.get(), what);
  virStorageVolPtr* raw = nullptr;
  int count = -1;
  const bool listed = InPool(pool.get(), [&] {
    count = virStoragePoolListAllVolumes(pool.get(), &raw, 0);
    return count >= 0;
  });
  if (!listed) ThrowLibvirt(what);
  std::vector<VolumePtr> volumes(raw, raw + count);
  std::free(raw);
  return volumes;
}

std::vector<std::string> Storage::Names() {
  std::vector<std::string> names;
  for (const auto& volume : ListAll(kList)) {
    names.emplace_back(virStorageVolGetName(volume.get()));
  }
  return names;
}

std::vector<Volume> Storage::List(std::string_view prefix) {
  std::vector<Volume> list;
  for (const auto& volume : ListAll(kList)) {
    // Each that is described costs two calls.
    if (!std::string_view(virStorageVolGetName(volume.get()))
             .starts_with(prefix)) {
      continue;
    }
    try {
      list.push_back(Describe(volume.get(), kList));
    } catch (const Error& error) {
      spdlog::debug("{}", error.Sentence());
    }
  }
  return list;
}

std::vector<Volume> Storage::ListWhole(
    const std::function<bool(std::string_view name)>& skip) {
  std::vector<Volume> list;
  for (const auto& volume : ListAll(kList)) {
    const std::string_view name = virStorageVolGetName(volume.get());
    if (skip && skip(name)) {
      list.emplace_back().name = name;
      continue;
    }
    for (int tries = 0;; ++tries) {
      try {
        list.push_back(Describe(volume.get(), kList));
        break;
      } catch (const Error& error) {
        // It went away since the listing.
        if (error.Errno() == ENOENT) break;
        // One that is being made is half a file for a moment.
        if (error.Errno() == EHOSTDOWN || tries == kHalfMade) throw;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
    }
  }
  return list;
}

bool Storage::Has(const std::string& name) {
  constexpr char kWhat[] = "Cannot look into the pool";
  const ConnPtr connection = connection_.Get(kWhat);
  const PoolPtr pool = Open(connection.get(), kWhat);
  const VolumePtr volume = FindIn(pool.get(), name);
  if (volume == nullptr && !LastLibvirtErrorIs(VIR_ERR_NO_STORAGE_VOL)) {
    ThrowLibvirt(kWhat);
  }
  return volume != nullptr;
}

Volume Storage::Get(const std::string& name) {
  const std::string what = fmt::format("Cannot look at volume '{}'", name);
  return Describe(Lookup(name, what).get(), what);
}

std::string Storage::Path(const std::string& name) {
  const std::string what = fmt::format("Cannot find volume '{}'", name);
  std::string path = TakeString(virStorageVolGetPath(Lookup(name, what).get()));
  if (path.empty()) ThrowLibvirt(what);
  return path;
}

Error Storage::Full(std::string_view what, uint64_t needed, uint64_t taken) {
  const ConnPtr connection = connection_.Get(what);
  const PoolPtr pool = Open(connection.get(), what);
  // libvirt counts what it makes; others fill the file system, too.
  (void)Refreshed(pool.get());
  virStoragePoolInfo info;
  if (virStoragePoolGetInfo(pool.get(), &info) < 0) ThrowLibvirt(what);
  const std::string path = XmlText(
      TakeString(virStoragePoolGetXMLDesc(pool.get(), 0)), "/pool/target/path");
  const std::string where = path.empty() ? "it" : path;
  const uint64_t room = info.available + taken;
  const std::string lack =
      needed > room
          ? fmt::format("of {} that are needed {} are missing in {}",
                        Rounded(needed), Rounded(needed - room), where)
          : fmt::format("more is needed than the {} that were free in {}",
                        Rounded(room), where);
  return Error(
      ENOSPC,
      fmt::format("{}: the pool '{}' is full: {}; {}, or make it larger", what,
                  pool_, lack,
                  Kind().files ? "rmdir what is in .host/trash, or rm images"
                               : "rm what is of no use in .host/disks"));
}

void Storage::CheckRoom(std::string_view what, uint64_t needed) {
  const ConnPtr connection = connection_.Get(what);
  const PoolPtr pool = Open(connection.get(), what);
  virStoragePoolInfo info;
  // Where it cannot say, the writing will.
  if (!Refreshed(pool.get()) || virStoragePoolGetInfo(pool.get(), &info) < 0) {
    virResetLastError();
    return;
  }
  if (needed > info.available) throw Full(what, needed, 0);
}

void Storage::Create(const std::string& name, const std::string& format,
                     uint64_t capacity, const std::string& backing_path,
                     const std::string& backing_format) {
  // Clusters of 64 KiB: a header, two tables of references, a first of the
  // disk's.
  constexpr uint64_t kEmptyQcow2 = 256 * 1024;
  CreateXml(name,
            VolumeXml(name, format, capacity, 0, backing_path, backing_format),
            format == "qcow2" ? kEmptyQcow2 : 0);
}

void Storage::CreateOwned(const std::string& name, uint64_t capacity,
                          uid_t owner) {
  CreateXml(name, VolumeXml(name, "raw", capacity, 0, "", "", owner), 0);
}

void Storage::CreateXml(const std::string& name, const std::string& xml,
                        uint64_t needed) {
  const std::string what = fmt::format("Cannot make volume '{}'", name);
  const ConnPtr connection = connection_.Get(what);
  const PoolPtr pool = Open(connection.get(), what);
  const bool made = InPool(pool.get(), [&] {
    return VolumePtr(virStorageVolCreateXML(pool.get(), xml.c_str(), 0)) !=
           nullptr;
  });
  if (made) return;
  const Error error = LibvirtError(what);
  if (error.Errno() == ENOSPC) throw Full(what, needed, 0);
  throw error;
}

void Storage::CreateFrom(const std::string& name, const std::string& format,
                         const std::string& source) {
  const std::string what = fmt::format("Cannot make volume '{}'", name);
  const ConnPtr connection = connection_.Get(what);
  CreateFrom(name, format, connection.get(), Lookup(source, what).get());
}

void Storage::CreateFrom(const std::string& name, const std::string& format,
                         virConnectPtr connection, virStorageVolPtr source) {
  const std::string what = fmt::format("Cannot make volume '{}'", name);
  const PoolPtr pool = Open(connection, what);
  const uint64_t capacity = Describe(source, what).capacity;
  const VolumePtr volume(virStorageVolCreateXMLFrom(
      pool.get(), VolumeXml(name, format, capacity, 0, "", "").c_str(), source,
      0));
  if (volume != nullptr) return;
  const Error error = LibvirtError(what);
  if (error.Errno() == ENOSPC) throw Full(what, 0, 0);
  throw error;
}

void Storage::Write(const std::string& name, std::string_view bytes) {
  // A shorter upload into an existing raw volume would keep the old tail.
  Delete(name);
  WriteNew(name, bytes);
}

void Storage::WriteNew(const std::string& name, std::string_view bytes) {
  // Allocated in advance: libvirt loses the error of a stream's last write, and
  // with it, in a full pool, a text's end.
  CreateXml(name, VolumeXml(name, "raw", bytes.size(), bytes.size(), "", ""),
            bytes.size());
  if (bytes.empty()) return;
  FillOrDelete(name, [&] {
    const std::string what = fmt::format("Cannot write volume '{}'", name);
    const auto upload = UploadOver(connection_.Get(what), name, what);
    upload->Send(bytes);
    upload->Finish();
  });
}

void Storage::FillOrDelete(const std::string& name,
                           const std::function<void()>& fill) {
  try {
    fill();
  } catch (...) {
    try {
      Delete(name);
    } catch (const Error& error) {
      spdlog::error("{}", error.Sentence());
    }
    throw;
  }
}

namespace {

// Calls `call`, again for a while when libvirt refuses it because somebody
// opens the volume just now to read it, as every mount does that sees a new
// one.
void UntilIdle(const std::string& what, const std::function<int()>& call) {
  constexpr int kTries = 100;
  for (int tries = 0; call() < 0; ++tries) {
    if (!LastLibvirtErrorIs(VIR_ERR_OPERATION_INVALID) || tries == kTries) {
      ThrowLibvirt(what);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

void Receive(virConnectPtr connection, virStorageVolPtr volume, uint64_t offset,
             uint64_t length, const std::string& what,
             const std::function<void(std::string_view)>& sink) {
  const StreamPtr stream(virStreamNew(connection, 0));
  if (stream == nullptr ||
      virStorageVolDownload(volume, stream.get(), offset, length, 0) < 0) {
    ThrowLibvirt(what);
  }
  std::string chunk(kChunk, '\0');
  for (;;) {
    const int got = virStreamRecv(stream.get(), chunk.data(), chunk.size());
    if (got < 0) ThrowStream(connection, what);
    if (got == 0) break;
    sink(std::string_view(chunk).substr(0, static_cast<size_t>(got)));
  }
  if (virStreamFinish(stream.get()) < 0) ThrowStream(connection, what);
}

}  // namespace

std::string Storage::Read(const std::string& name, uint64_t offset,
                          uint64_t length) {
  const std::string what = fmt::format("Cannot read volume '{}'", name);
  const ConnPtr connection = connection_.Get(what);
  std::string bytes;
  Receive(connection.get(), Lookup(name, what).get(), offset, length, what,
          [&](std::string_view part) { bytes += part; });
  return bytes;
}

void Storage::Download(const std::string& name,
                       const std::function<void(std::string_view)>& sink) {
  const std::string what = fmt::format("Cannot read volume '{}'", name);
  const ConnPtr connection = connection_.Own(what);
  Receive(connection.get(), Lookup(connection.get(), name, what).get(), 0, 0,
          what, sink);
}

void Storage::Delete(const std::string& name) {
  const std::string what = fmt::format("Cannot delete volume '{}'", name);
  const ConnPtr connection = connection_.Get(what);
  const PoolPtr pool = Open(connection.get(), what);
  const VolumePtr volume = FindIn(pool.get(), name);
  if (volume == nullptr) {
    if (LastLibvirtErrorIs(VIR_ERR_NO_STORAGE_VOL)) return;
    ThrowLibvirt(what);
  }
  UntilIdle(what, [&] { return virStorageVolDelete(volume.get(), 0); });
}

void Storage::Resize(const std::string& name, uint64_t capacity) {
  const std::string what = fmt::format("Cannot resize volume '{}'", name);
  if (virStorageVolResize(Lookup(name, what).get(), capacity, 0) < 0) {
    ThrowLibvirt(what);
  }
}

std::unique_ptr<VolumeUpload> Storage::Upload(const std::string& name) {
  std::string what = fmt::format("Cannot write volume '{}'", name);
  return UploadOver(connection_.Own(what), name, what);
}

std::unique_ptr<VolumeUpload> Storage::UploadOver(ConnPtr connection,
                                                  const std::string& name,
                                                  std::string what) {
  const VolumePtr volume = Lookup(connection.get(), name, what);
  StreamPtr stream(virStreamNew(connection.get(), 0));
  if (stream == nullptr) ThrowLibvirt(what);
  UntilIdle(what, [&] {
    return virStorageVolUpload(volume.get(), stream.get(), 0, 0,
                               VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM);
  });
  return std::make_unique<VolumeUpload>(std::move(connection),
                                        std::move(stream), std::move(what));
}

void Storage::Refresh() {
  constexpr char kWhat[] = "Cannot refresh the pool";
  const ConnPtr connection = connection_.Get(kWhat);
  const PoolPtr pool = Open(connection.get(), kWhat);
  if (!Refreshed(pool.get())) ThrowLibvirt(kWhat);
}

void Storage::Mark(const std::string& uuid) {
  const std::string mark = std::string(kMark) + uuid;
  if (!Has(mark)) WriteNew(mark, "");
}

std::vector<std::string> Storage::SharedWith(
    const std::string& uuid, const std::vector<std::string>& names) {
  std::vector<std::string> others;
  for (const auto& name : names) {
    if (name.starts_with(kMark) && name.substr(kMark.size()) != uuid) {
      others.push_back(name.substr(kMark.size()));
    }
  }
  return others;
}

void Storage::Announce() {
  try {
    Refresh();
  } catch (const Error& error) {
    // Others see the change a little later; nothing depends on it here.
    spdlog::debug("{}", error.Sentence());
  }
}

}  // namespace sbxfs
