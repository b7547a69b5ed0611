// Preloaded into a daemon: kills it, as kill -9 does, before the call of
// libvirt that a file counts down to, or makes a call hang. Only calls that
// change something count, and the one that waits for a copy.
#include <dlfcn.h>
#include <libvirt/libvirt.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>

namespace {

// $SBXFS_FAULTS names a file with the number of calls to let through, plus one;
// nothing happens while it is not there.
void Count() {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  const char* path = std::getenv("SBXFS_FAULTS");
  if (path == nullptr) return;
  FILE* file = std::fopen(path, "r+");
  if (file == nullptr) return;
  int left = 0;
  if (std::fscanf(file, "%d", &left) == 1 && left > 0) {
    if (left == 1) kill(getpid(), SIGKILL);
    std::rewind(file);
    std::fprintf(file, "%-8d\n", left - 1);
  }
  std::fclose(file);
}

// A call hangs for as long as the file of its name is in $SBXFS_HANGS.
void Hang(const char* name) {
  const char* directory = std::getenv("SBXFS_HANGS");
  if (directory == nullptr) return;
  const std::string path = std::string(directory) + '/' + name;
  while (access(path.c_str(), F_OK) == 0) usleep(10000);
}

template <typename Function>
Function Next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

}  // namespace

#define SBXFS_COUNTED(result, name, parameters, arguments)      \
  result name parameters {                                      \
    Count();                                                    \
    Hang(#name);                                                \
    static const auto next = Next<result(*) parameters>(#name); \
    return next arguments;                                      \
  }

extern "C" {
SBXFS_COUNTED(virStorageVolPtr, virStorageVolCreateXML,
              (virStoragePoolPtr pool, const char* xml, unsigned int flags),
              (pool, xml, flags))
SBXFS_COUNTED(virStorageVolPtr, virStorageVolCreateXMLFrom,
              (virStoragePoolPtr pool, const char* xml, virStorageVolPtr from,
               unsigned int flags),
              (pool, xml, from, flags))
SBXFS_COUNTED(int, virStorageVolDelete,
              (virStorageVolPtr volume, unsigned int flags), (volume, flags))
SBXFS_COUNTED(int, virStreamFinish, (virStreamPtr stream), (stream))
SBXFS_COUNTED(virDomainSnapshotPtr, virDomainSnapshotCreateXML,
              (virDomainPtr domain, const char* xml, unsigned int flags),
              (domain, xml, flags))
SBXFS_COUNTED(int, virDomainSnapshotDelete,
              (virDomainSnapshotPtr snapshot, unsigned int flags),
              (snapshot, flags))
SBXFS_COUNTED(virDomainPtr, virDomainDefineXML,
              (virConnectPtr connection, const char* xml), (connection, xml))
SBXFS_COUNTED(int, virDomainSetMetadata,
              (virDomainPtr domain, int type, const char* metadata,
               const char* key, const char* uri, unsigned int flags),
              (domain, type, metadata, key, uri, flags))
SBXFS_COUNTED(int, virDomainUndefineFlags,
              (virDomainPtr domain, unsigned int flags), (domain, flags))
SBXFS_COUNTED(int, virDomainBackupBegin,
              (virDomainPtr domain, const char* xml, const char* checkpoint,
               unsigned int flags),
              (domain, xml, checkpoint, flags))
SBXFS_COUNTED(int, virDomainGetJobInfo,
              (virDomainPtr domain, virDomainJobInfoPtr info), (domain, info))
SBXFS_COUNTED(int, virDomainCreate, (virDomainPtr domain), (domain))
SBXFS_COUNTED(int, virDomainShutdownFlags,
              (virDomainPtr domain, unsigned int flags), (domain, flags))
SBXFS_COUNTED(int, virDomainDestroy, (virDomainPtr domain), (domain))
}
