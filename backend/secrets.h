#ifndef SBXFS_BACKEND_SECRETS_H_
#define SBXFS_BACKEND_SECRETS_H_

#include <string>

#include "backend/core.h"

namespace sbxfs {

// secrets/: values that a running guest holds in /run/sbxfs, in memory, and
// nobody else: they are handed on as they come and wiped. Which there are is
// noted by name on the running domain, and forgotten with it.
class Secrets {
 public:
  explicit Secrets(Core& core) : core_(core) {}

  // Gives the guest a secret; an empty value takes it away. A single line is
  // kept without its newline, several lines as they are. EINVAL for a bad name
  // or a NUL, E2BIG, EBUSY while nothing runs that could take it.
  void Set(const std::string& uuid, const std::string& name,
           const std::string& value, Reply<Done> reply);

 private:
  void SetNow(const std::string& uuid, const std::string& name,
              const std::string& value, const std::string& what);

  Core& core_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SECRETS_H_
