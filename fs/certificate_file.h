#ifndef SBXFS_FS_CERTIFICATE_FILE_H_
#define SBXFS_FS_CERTIFICATE_FILE_H_

#include <string>

#include "fs/text_file.h"

namespace sbxfs {

// ssh_cert: each opening for reading is issued a certificate, and a public key
// that is written has one, for whoever reads on from the same open file. Nobody
// else sees it, and nothing is kept.
class CertificateFile : public TextFile {
 public:
  CertificateFile(TreePtr tree, const Row& row, const std::string& uuid)
      : TextFile(std::move(tree), row, uuid) {}

  void Open(const Caller& caller, int flags, Reply<OpenFilePtr> reply) override;

  // One of the caller's usual key, which is told as a change would be.
  void Issue(const Caller& caller, Reply<std::string> reply);
  // One of the public key in `bytes`; nothing for what is another command.
  void Take(const Caller& caller, const std::string& bytes, bool wait,
            Reply<std::string> reply);
};

}  // namespace sbxfs

#endif  // SBXFS_FS_CERTIFICATE_FILE_H_
