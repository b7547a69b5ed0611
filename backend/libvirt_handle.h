#ifndef SBXFS_BACKEND_LIBVIRT_HANDLE_H_
#define SBXFS_BACKEND_LIBVIRT_HANDLE_H_

#include <libvirt/libvirt.h>

#include <cstdlib>
#include <memory>
#include <string>

namespace sbxfs {

// Owners of libvirt's handles. Each may be moved to and freed on any thread.
template <auto Free>
struct LibvirtFree {
  template <typename T>
  void operator()(T* handle) const {
    Free(handle);
  }
};
using ConnPtr = std::unique_ptr<virConnect, LibvirtFree<virConnectClose>>;
using DomainPtr = std::unique_ptr<virDomain, LibvirtFree<virDomainFree>>;
using SnapshotPtr =
    std::unique_ptr<virDomainSnapshot, LibvirtFree<virDomainSnapshotFree>>;
using PoolPtr =
    std::unique_ptr<virStoragePool, LibvirtFree<virStoragePoolFree>>;
using VolumePtr =
    std::unique_ptr<virStorageVol, LibvirtFree<virStorageVolFree>>;
using NetworkPtr = std::unique_ptr<virNetwork, LibvirtFree<virNetworkFree>>;
using FilterPtr = std::unique_ptr<virNWFilter, LibvirtFree<virNWFilterFree>>;
using StreamPtr = std::unique_ptr<virStream, LibvirtFree<virStreamFree>>;

// A string that libvirt allocated, freed; empty for null.
inline std::string TakeString(char* text) {
  std::string result = text == nullptr ? "" : text;
  std::free(text);
  return result;
}

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_LIBVIRT_HANDLE_H_
