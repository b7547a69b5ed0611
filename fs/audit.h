#ifndef SBXFS_FS_AUDIT_H_
#define SBXFS_FS_AUDIT_H_

#include <string>
#include <string_view>

#include "fs/server.h"

namespace sbxfs {

// A change that somebody asks for.
struct Deed {
  std::string_view operation;
  std::string path;     // from the root of the mount
  std::string subject;  // the sandbox's uuid, or empty
  std::string value;    // what was written, as far as anybody may see it
};

// Adds a line to .host/audit when the request is answered:
// TIME UID PID COMMAND OPERATION PATH RESULT VALUE. Blanks, backslashes and
// control characters within are written as in /proc/mounts, but for VALUE's
// blanks.
void Audit(Server& server, const RequestPtr& request, Deed deed);

// The same at once, of what was done without a request for a change.
void AuditDone(Tree& tree, const Caller& who, const Deed& deed);

// A file's path, or a directory's with a slash at its end.
[[nodiscard]] std::string PathOf(const Tree& tree, const Node& node);

}  // namespace sbxfs

#endif  // SBXFS_FS_AUDIT_H_
