#ifndef SBXFS_BACKEND_KEPT_FACTS_H_
#define SBXFS_BACKEND_KEPT_FACTS_H_

#include "backend/domain_xml.h"
#include "backend/packed_text.h"

namespace sbxfs {

// What is known of a domain, for as long as it lives: the long texts of its
// metadata, which most sandboxes have in common, are packed.
class KeptFacts {
 public:
  explicit KeptFacts(DomainFacts facts);

  [[nodiscard]] DomainFacts Whole() const;
  // Without those texts: config, bases, rejected, defined, applied, records,
  // keeps and keys.
  [[nodiscard]] const DomainFacts& Brief() const { return brief_; }

 private:
  DomainFacts brief_;
  PackedText<PackedKind::kMetadata> texts_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_KEPT_FACTS_H_
