#ifndef SBXFS_BACKEND_HOST_DOCUMENTS_H_
#define SBXFS_BACKEND_HOST_DOCUMENTS_H_

#include <optional>
#include <string>

#include "backend/core.h"
#include "backend/documents.h"
#include "backend/util/look_order.h"

namespace sbxfs {

// The documents of .host: checked, kept in the pool, shown in Host. All
// functions block and throw Error.
class HostDocuments {
 public:
  HostDocuments(Core& core, Documents& documents)
      : core_(core), documents_(documents) {}

  // Brings Host in step with the pool; false when it was.
  bool Read();
  // As Backend::SetDocument; "authorized_keys" too.
  void Set(const std::string& name, const std::optional<std::string>& text);

 private:
  Core& core_;
  Documents& documents_;
  LookOrder looks_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_HOST_DOCUMENTS_H_
