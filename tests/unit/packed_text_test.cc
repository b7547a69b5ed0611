#include "backend/packed_text.h"

#include <gtest/gtest.h>

#include <string>

#include "backend/kept_facts.h"

namespace sbxfs {
namespace {

using Packed = PackedText<PackedKind::kMetadata>;

TEST(PackedTextTest, GivesBackWhatWasPacked) {
  std::string binary;
  for (unsigned i = 0; i < 70000; ++i) {
    binary += static_cast<char>(i * i >> 3);
  }
  const std::string texts[] = {"", "a", std::string(1, '\0'), binary,
                               std::string(100000, 'x')};
  for (const auto& text : texts) {
    const Packed packed(text);
    EXPECT_EQ(packed.Text(), text);
    EXPECT_EQ(packed.empty(), text.empty());
    EXPECT_EQ(packed, Packed(text));
  }
  EXPECT_NE(Packed("a"), Packed("b"));
  EXPECT_EQ(Packed().Text(), "");
}

TEST(KeptFactsTest, KeepsLongTextsApart) {
  DomainFacts facts;
  facts.name = "box";
  EXPECT_FALSE(KeptFacts(facts).Whole().metadata);
  Metadata& meta = facts.metadata.emplace();
  meta.config = "cpus: 2\n";
  meta.bases = std::string("12:\0:", 5);
  meta.defined = "cpus=1";
  meta.applied = "8 config.yaml\ncpus: 2\n";
  meta.rejected = "cpus: -1\n";
  meta.rejected_reason = "too few";
  meta.host_key = "ssh-ed25519 A";
  meta.authorized_keys = "ssh-ed25519 B\n";
  meta.records = "records";
  meta.keeps = "keeps";
  meta.image = "debian-12";
  const KeptFacts kept(facts);
  EXPECT_EQ(kept.Brief().metadata->config, "");
  EXPECT_EQ(kept.Brief().metadata->image, "debian-12");
  const DomainFacts whole = kept.Whole();
  EXPECT_EQ(whole.name, "box");
  const Metadata& back = *whole.metadata;
  EXPECT_EQ(back.config, meta.config);
  EXPECT_EQ(back.bases, meta.bases);
  EXPECT_EQ(back.defined, meta.defined);
  EXPECT_EQ(back.applied, meta.applied);
  EXPECT_EQ(back.rejected, meta.rejected);
  EXPECT_EQ(back.rejected_reason, meta.rejected_reason);
  EXPECT_EQ(back.host_key, meta.host_key);
  EXPECT_EQ(back.authorized_keys, meta.authorized_keys);
  EXPECT_EQ(back.records, meta.records);
  EXPECT_EQ(back.keeps, meta.keeps);
  EXPECT_EQ(back.image, meta.image);
}

}  // namespace
}  // namespace sbxfs
