#ifndef SBXFS_BACKEND_STORAGE_H_
#define SBXFS_BACKEND_STORAGE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "backend/disk_place.h"
#include "backend/libvirt_connection.h"
#include "backend/libvirt_handle.h"
#include "backend/util/mutex.h"

namespace sbxfs {

struct Volume {
  std::string name;
  uint64_t capacity = 0;
  uint64_t allocation = 0;
  uint64_t size = 0;           // bytes of the file
  Time modified;               // by the hypervisor's clock
  std::string backing;         // path of what it is an overlay of, or empty
  std::string format;          // as libvirt found it
  std::string backing_format;  // what it says of that
};

struct PoolInfo {
  uint64_t size = 0;
  uint64_t available = 0;
  std::string uuid;
  std::string directory;  // that paths of volumes begin with, with its slash
};

// What libvirt can do in a pool of some type.
struct PoolKind {
  std::string_view type;
  bool files;  // volumes are files, of any format; others are raw
  bool thick;  // a volume takes all its room at once, and keeps what was there
  bool grows;  // a volume can be made larger
};

// A volume being filled, front to back, over a libvirt stream on a connection
// of its own; zeros become holes. Blocking; one thread at a time. Destroyed
// before Finish it aborts the stream.
class VolumeUpload {
 public:
  VolumeUpload(ConnPtr connection, StreamPtr stream, std::string what)
      : connection_(std::move(connection)),
        stream_(std::move(stream)),
        what_(std::move(what)) {}
  ~VolumeUpload();
  VolumeUpload(const VolumeUpload&) = delete;
  VolumeUpload& operator=(const VolumeUpload&) = delete;
  void Send(std::string_view bytes);
  void Finish();

 private:
  ConnPtr connection_;
  StreamPtr stream_;
  const std::string what_;  // begins its sentences
};

// The volumes of one pool, by the libvirt API alone: no path of the
// hypervisor's is ever opened here. All functions block and throw Error; they
// may be called from any thread.
class Storage {
 public:
  Storage(Connection& connection, std::string pool);

  // Finds the pool, or makes a `dir` pool where libvirt keeps its images, and
  // starts it. `home` is the data directory of a session libvirt on this
  // machine; empty for another's.
  void Ensure(virConnectPtr connection, const std::string& home);
  // Finds a pool that is there, in which volumes can be made, if only raw ones,
  // and starts it.
  void Find(virConnectPtr connection);

  [[nodiscard]] const std::string& Pool() const { return pool_; }
  // As the last Ensure or Find found it; before that, one of files.
  [[nodiscard]] const PoolKind& Kind() const { return *kind_; }
  [[nodiscard]] PoolInfo Info();
  // Of those whose names begin so; without what cannot be looked at.
  [[nodiscard]] std::vector<Volume> List(std::string_view prefix);
  // Every volume, a call for each; of those that `skip` says only the names.
  // Throws when one that is there cannot be looked at: what that one stands on
  // would seem to be nobody's.
  [[nodiscard]] std::vector<Volume> ListWhole(
      const std::function<bool(std::string_view name)>& skip = {});
  // One call, whatever their number.
  [[nodiscard]] std::vector<std::string> Names();
  [[nodiscard]] bool Has(const std::string& name);
  [[nodiscard]] Volume Get(const std::string& name);
  [[nodiscard]] std::string Path(const std::string& name);
  // The same of one that is there, or will be, in a pool of files, without a
  // call: libvirt answers none while it lists the pool after an upload.
  [[nodiscard]] std::string PathOf(std::string_view name) const
      EXCLUDES(mutex_);

  void Create(const std::string& name, const std::string& format,
              uint64_t capacity, const std::string& backing_path = "",
              const std::string& backing_format = "");
  // A volume that stands on nothing and reads as zeros, of the format that
  // disks have in this pool; in a thick one that takes time.
  void CreateDisk(const std::string& name, uint64_t capacity);
  // Where that is, for a domain that has one.
  [[nodiscard]] DiskPlace Place() const EXCLUDES(mutex_);
  // A raw volume full of holes, for a QEMU that runs as `owner` to open by
  // itself.
  void CreateOwned(const std::string& name, uint64_t capacity, uid_t owner);
  // A volume that stands on nothing, with what `source` shows.
  void CreateFrom(const std::string& name, const std::string& format,
                  const std::string& source);
  // The same of a volume of any pool, of that connection.
  void CreateFrom(const std::string& name, const std::string& format,
                  virConnectPtr connection, virStorageVolPtr source);
  // Makes a raw volume with these bytes; one that exists is replaced.
  void Write(const std::string& name, std::string_view bytes);
  // The same for a name that must be free: EEXIST.
  void WriteNew(const std::string& name, std::string_view bytes);
  // Up to `length` bytes from `offset`; 0 is all.
  [[nodiscard]] std::string Read(const std::string& name, uint64_t offset,
                                 uint64_t length);
  // All of it in pieces, on a connection of its own.
  void Download(const std::string& name,
                const std::function<void(std::string_view)>& sink);
  // A volume that is not there is no error.
  void Delete(const std::string& name);
  void Resize(const std::string& name, uint64_t capacity);
  // An existing raw volume's content from its start.
  [[nodiscard]] std::unique_ptr<VolumeUpload> Upload(const std::string& name);
  // Why `what` fails in a full pool, with what is missing where. `needed`:
  // bytes, 0 where nobody knows; `taken`: how many it has of them and gives
  // back.
  [[nodiscard]] Error Full(std::string_view what, uint64_t needed,
                           uint64_t taken);
  // Throws Full when so much cannot fit.
  void CheckRoom(std::string_view what, uint64_t needed);
  // Has libvirt look at what is in the pool's place now.
  void Refresh();
  // Makes every mount on this pool look again.
  void Announce();
  // Notes in the pool's place that a libvirt has it as the pool of that UUID.
  // (A host's UUID changes with each libvirtd where firmware gives none.)
  void Mark(const std::string& uuid);
  // The UUIDs of other libvirts' pools in the same place, whose sandboxes are
  // not known here, by the names of all volumes.
  [[nodiscard]] static std::vector<std::string> SharedWith(
      const std::string& uuid, const std::vector<std::string>& names);

 private:
  // Runs `fill`; where it throws, the volume is deleted.
  void FillOrDelete(const std::string& name, const std::function<void()>& fill);
  void CreateXml(const std::string& name, const std::string& xml,
                 uint64_t needed);
  [[nodiscard]] std::vector<VolumePtr> ListAll(std::string_view what);
  [[nodiscard]] PoolPtr Open(virConnectPtr connection, std::string_view what);
  [[nodiscard]] VolumePtr Lookup(virConnectPtr connection,
                                 const std::string& name,
                                 std::string_view what);
  [[nodiscard]] VolumePtr Lookup(const std::string& name,
                                 std::string_view what) {
    return Lookup(connection_.Get(what).get(), name, what);
  }
  [[nodiscard]] std::unique_ptr<VolumeUpload> UploadOver(
      ConnPtr connection, const std::string& name, std::string what);

  // Notes its kind, which must be one of files where `files` says so, and
  // starts it.
  void Take(virStoragePoolPtr pool, bool files, std::string_view what)
      EXCLUDES(mutex_);

  Connection& connection_;
  const std::string pool_;
  std::atomic<const PoolKind*> kind_;
  mutable Mutex mutex_;
  std::string directory_ GUARDED_BY(mutex_);  // with its slash
  DiskPlace place_ GUARDED_BY(mutex_);
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_STORAGE_H_
