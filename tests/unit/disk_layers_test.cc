#include <gtest/gtest.h>

#include "backend/chain_pull.h"
#include "backend/domain_xml.h"
#include "backend/layers.h"
#include "backend/snapshot_xml.h"

namespace sbxfs {
namespace {

using Names = std::vector<std::string>;

constexpr char kA[] = "0f0e0d0c-0b0a-4908-8706-05040302010a";
constexpr char kB[] = "0f0e0d0c-0b0a-4908-8706-05040302010b";

std::string Disk(const std::string& uuid, int number = 0) {
  return uuid + ".disk" + (number == 0 ? "" : "." + std::to_string(number));
}

Volume On(const std::string& name, const std::string& below) {
  Volume volume;
  volume.name = name;
  if (!below.empty()) volume.backing = "/pool/" + below;
  return volume;
}

TEST(DiskLayers, TellsWhoseAVolumeIs) {
  EXPECT_EQ(UuidIn(Disk(kA, 3)), kA);
  EXPECT_EQ(UuidIn(kA), "");
  EXPECT_EQ(UuidIn("image.debian"), "");
  EXPECT_TRUE(IsLayerOf(Disk(kA), kA));
  EXPECT_TRUE(IsLayerOf(Disk(kA, 12), kA));
  EXPECT_FALSE(IsLayerOf(Disk(kA, 12), kB));
  EXPECT_FALSE(IsLayerOf(std::string(kA) + ".disk.x", kA));
  EXPECT_FALSE(IsLayerOf(std::string(kA) + ".diskette", kA));
  EXPECT_FALSE(IsLayerOf(std::string(kA) + ".seed", kA));
  EXPECT_TRUE(IsSeedOf(std::string(kA) + ".seed.1", kA));
}

TEST(DiskLayers, NamesWhatAMemoryIsSplitInto) {
  const std::string uuid = "11111111-1111-4111-8111-111111111111";
  EXPECT_EQ(ForkVolumes(uuid + ".memory.3"),
            (std::set<std::string>{uuid + ".memory.3", uuid + ".fork.3",
                                   uuid + ".ram.3"}));
  EXPECT_TRUE(IsForkOf(uuid + ".ram.3", uuid));
  EXPECT_TRUE(IsForkOf(uuid + ".fork.3", uuid));
  EXPECT_FALSE(IsForkOf(uuid + ".memory.3", uuid));
  EXPECT_FALSE(IsForkOf(uuid + ".ram.x", uuid));
}

TEST(DiskLayers, AnUntouchedOverlayIsAsLargeAsItsTables) {
  Volume volume;
  volume.capacity = 64 << 20;
  volume.size = 196616;
  EXPECT_TRUE(IsUntouched(volume));
  volume.size += 64 * 1024;
  EXPECT_FALSE(IsUntouched(volume));
  volume.capacity = 8ULL << 30;
  volume.size = 196608 + 16 * 8;
  EXPECT_TRUE(IsUntouched(volume));
}

TEST(DiskLayers, FindsTheVolumesThatATextMentions) {
  const std::string text = "<uuid>" + std::string(kA) + "</uuid><a volume='" +
                           Disk(kA, 1) + "'/><b file='/pool/" + Disk(kB) +
                           "'/>" + "x.y " + Disk(kA, 10) + " end.";
  EXPECT_EQ(VolumesIn(text),
            (std::set<std::string>{Disk(kA, 1), Disk(kA, 10), Disk(kB)}));
  EXPECT_TRUE(VolumesIn(std::string(kA) + ".").empty());
  EXPECT_TRUE(VolumesIn("").empty());
  EXPECT_EQ(VolumesIn(Disk(kA)), std::set<std::string>{Disk(kA)});
}

TEST(DiskLayers, WhatNobodyNeedsGoesOverlaysFirst) {
  const std::vector<Volume> volumes = {
      On(Disk(kA), "image.x"), On(Disk(kA, 1), Disk(kA)),
      On(Disk(kA, 2), Disk(kA, 1)), On(Disk(kA, 3), Disk(kA, 1)),
      On("image.x", "")};
  const std::set<std::string> all = {Disk(kA), Disk(kA, 1), Disk(kA, 2),
                                     Disk(kA, 3)};
  EXPECT_EQ(Uses(volumes, {}).Unneeded(all),
            (Names{Disk(kA, 2), Disk(kA, 3), Disk(kA, 1), Disk(kA)}));
  EXPECT_EQ(Uses(volumes, {Disk(kA, 3)}).Unneeded(all), Names{Disk(kA, 2)});
  EXPECT_EQ(Uses(volumes, {Disk(kA)}).Unneeded(all),
            (Names{Disk(kA, 2), Disk(kA, 3), Disk(kA, 1)}));
  // What is no candidate keeps what it stands on.
  EXPECT_EQ(Uses(volumes, {}).Unneeded({Disk(kA, 1), Disk(kA, 2)}),
            Names{Disk(kA, 2)});
  // A name alone is no volume.
  EXPECT_TRUE(Uses(volumes, {}).Unneeded({Disk(kB)}).empty());
}

TEST(DiskLayers, AnothersLayersStandOnThem) {
  const std::vector<Volume> volumes = {On(Disk(kA), "image.x"),
                                       On(Disk(kA, 1), Disk(kA)),
                                       On(Disk(kB), Disk(kA))};
  EXPECT_EQ(Uses(volumes, {}).Unneeded({Disk(kA), Disk(kA, 1)}),
            Names{Disk(kA, 1)});
}

TEST(DiskLayers, ACircleEnds) {
  const std::vector<Volume> volumes = {On(Disk(kA), Disk(kA, 1)),
                                       On(Disk(kA, 1), Disk(kA))};
  EXPECT_EQ(Uses(volumes, {}).Unneeded({Disk(kA), Disk(kA, 1)}).size(), 2u);
  EXPECT_TRUE(Uses(volumes, {Disk(kA)}).Unneeded({Disk(kA, 1)}).empty());
}

std::string SnapshotText(const std::string& name, const std::string& parent,
                         const std::string& disk) {
  return "<domainsnapshot><name>" + name + "</name>" +
         (parent.empty() ? ""
                         : "<parent><name>" + parent + "</name></parent>") +
         "<creationTime>1700000000</creationTime><memory snapshot='no'/>"
         "<disks><disk name='vda' snapshot='external'><source file='/p/" +
         Disk(kA, 9) +
         "'/></disk></disks><domain type='qemu'><name>old</name><uuid>" + kA +
         "</uuid><devices><disk type='file'><source file='/p/" + disk +
         "'/><target dev='vda'/></disk><disk type='volume'><source pool='p' "
         "volume='" +
         kA +
         ".seed'/><target dev='vdb'/></disk></devices></domain>"
         "</domainsnapshot>";
}

TEST(SnapshotXmlTest, ReadsWhatWasFrozen) {
  const SnapshotFacts facts =
      ParseSnapshot(SnapshotText("two", "one", Disk(kA, 1)));
  EXPECT_EQ(facts.name, "two");
  EXPECT_EQ(facts.parent, "one");
  EXPECT_EQ(facts.layer, Disk(kA, 1));
  EXPECT_EQ(facts.seed, std::string(kA) + ".seed");
  EXPECT_EQ(facts.created, Time(std::chrono::seconds(1700000000)));
  EXPECT_FALSE(facts.internal);
  EXPECT_FALSE(facts.memory);
  EXPECT_FALSE(facts.quiesced);
  EXPECT_THROW((void)ParseSnapshot("<domain/>"), Error);
  const SnapshotFacts inside = ParseSnapshot(
      "<domainsnapshot><name>x</name><memory snapshot='internal'/>"
      "</domainsnapshot>");
  EXPECT_TRUE(inside.internal);
  EXPECT_TRUE(inside.memory);
  EXPECT_EQ(inside.layer, "");
  const SnapshotFacts never = ParseSnapshot(
      "<domainsnapshot><creationTime>18446744073709551615</creationTime>"
      "</domainsnapshot>");
  EXPECT_EQ(never.created, Time());
}

TEST(SnapshotXmlTest, EditsNothingElse) {
  const std::string text = SnapshotText("two", "one", Disk(kA, 1));
  SnapshotEdit edit;
  edit.name = "new & better";
  edit.parent = "";
  edit.description = "<b>";
  edit.quiesced = true;
  const SnapshotFacts facts = ParseSnapshot(EditSnapshot(text, edit));
  EXPECT_EQ(facts.name, "new & better");
  EXPECT_EQ(facts.parent, "");
  EXPECT_EQ(facts.description, "<b>");
  EXPECT_TRUE(facts.quiesced);
  EXPECT_EQ(facts.layer, Disk(kA, 1));
  SnapshotEdit parent;
  parent.parent = "zero";
  const std::string again = EditSnapshot(EditSnapshot(text, edit), parent);
  EXPECT_EQ(ParseSnapshot(again).parent, "zero");
  EXPECT_TRUE(ParseSnapshot(again).quiesced);
}

TEST(SnapshotXmlTest, AnUnlinkedOneNamesNoFileOfItsChain) {
  Metadata meta;
  meta.pool = "sbxfs";
  meta.disk_volume = Disk(kA, 1);
  const std::string domain = DomainOnFile(
      DomainOnLayer("<domain><name>box</name><uuid>" + std::string(kA) +
                        "</uuid><devices><disk type='file'>"
                        "<source file='/p/x'/><target dev='vda'/>"
                        "</disk></devices></domain>",
                    meta),
      "/pool/" + Disk(kA, 1));
  std::string copy = domain.substr(domain.find("<domain"));
  std::string inactive = copy;
  for (size_t at = 0; (at = inactive.find("domain>", at)) != std::string::npos;
       at += 14) {
    inactive.replace(at, 7, "inactiveDomain>");
  }
  SnapshotEdit edit;
  edit.unlinked = true;
  const std::string text = EditSnapshot(
      "<domainsnapshot><name>one</name><disks><disk name='vda' "
      "snapshot='external'><source file='/pool/next'/></disk></disks>" +
          copy + inactive + "</domainsnapshot>",
      edit);
  EXPECT_EQ(text.find("/pool/"), std::string::npos) << text;
  EXPECT_EQ(ParseSnapshot(text).layer, Disk(kA, 1));
}

TEST(SnapshotXmlTest, ANewLayerReplacesWhatTheOldTextSaysOfTheChain) {
  Metadata meta;
  meta.pool = "sbxfs";
  meta.disk_volume = Disk(kA, 4);
  meta.seed_volume = std::string(kA) + ".seed.1";
  meta.config = "cpus: 4\n";
  const std::string xml =
      "<domain type='qemu'><name>box</name><uuid>" + std::string(kA) +
      "</uuid><metadata><other xmlns='urn:x'>kept</other></metadata>"
      "<devices><disk type='file' device='disk'><source file='/p/old'/>"
      "<backingStore type='file'><source file='/p/older'/></backingStore>"
      "<target dev='vda'/></disk><disk type='volume'><source pool='p' "
      "volume='seed'/><target dev='vdb'/><readonly/></disk>"
      "<disk type='file'><source file='/p/more'/><target dev='vdc'/></disk>"
      "</devices></domain>";
  const std::string edited = DomainOnLayer(xml, meta);
  EXPECT_EQ(edited.find("old"), std::string::npos) << edited;
  EXPECT_NE(edited.find("/p/more"), std::string::npos);
  EXPECT_NE(edited.find("kept"), std::string::npos);
  // Twice is once.
  const DomainFacts facts = ParseDomain(DomainOnLayer(edited, meta));
  EXPECT_EQ(facts.disk, meta.disk_volume);
  EXPECT_EQ(facts.seed, meta.seed_volume);
  ASSERT_TRUE(facts.metadata);
  EXPECT_EQ(facts.metadata->config, meta.config);
}

TEST(SnapshotXmlTest, ARootDiskCanBeGivenByItsPath) {
  const std::string xml =
      "<domain type='qemu'><name>box</name><devices>"
      "<disk type='volume' device='disk'><source pool='p' volume='top'/>"
      "<target dev='vda'/></disk><disk type='volume'><source pool='p' "
      "volume='seed'/><target dev='vdb'/><readonly/></disk>"
      "</devices></domain>";
  const std::string edited = DomainOnFile(xml, "/p/top");
  EXPECT_EQ(XmlText(edited, "/domain/devices/disk[1]/@type"), "file");
  EXPECT_EQ(XmlText(edited, "/domain/devices/disk[1]/source/@file"), "/p/top");
  const DomainFacts facts = ParseDomain(edited);
  EXPECT_EQ(facts.disk_volumes, (std::vector<std::string>{"", "seed"}));
  EXPECT_EQ(facts.disk, "top");
}

SnapshotFacts Named(const std::string& name, const std::string& parent) {
  SnapshotFacts facts;
  facts.name = name;
  facts.parent = parent;
  facts.layer = name;
  return facts;
}

TEST(SnapshotXmlTest, OfSeveralUndosTheLastIsShown) {
  const std::vector<SnapshotFacts> all = {
      Named("a", ""),        Named("~undo.1", "a"), Named("~undo.2", "~undo.1"),
      Named("b", "~undo.1"), Named("~work.7", "b"), Named("c", "~work.7")};
  const auto shown = DescribeSnapshots(all);
  ASSERT_EQ(shown.size(), 4u);
  EXPECT_EQ(shown.at(".undo").layer, "~undo.2");
  EXPECT_EQ(shown.at(".undo").parent, "a");
  EXPECT_EQ(shown.at("b").parent, "a");
  EXPECT_EQ(shown.at("c").parent, "b");
  EXPECT_EQ(ShownTag(all, "~undo.2"), ".undo");
  EXPECT_EQ(ShownTag(all, "~work.7"), "b");
  EXPECT_EQ(ShownTag(all, "nowhere"), "");
  EXPECT_EQ(FindTag(all, ""), nullptr);
  const std::vector<SnapshotFacts> circle = {Named("~x", "~y"),
                                             Named("~y", "~x")};
  EXPECT_EQ(ShownTag(circle, "~x"), "");
}

// What stands right below the top and nobody else needs is cut out.
TEST(DiskLayers, TheLayersRightBelowTheTopAreCutOut) {
  const std::string top = Disk(kA, 3);
  const std::vector<Volume> chain = {
      On("image.debian", ""), On(Disk(kA), "image.debian"),
      On(Disk(kA, 1), Disk(kA)), On(Disk(kA, 2), Disk(kA, 1)),
      On(top, Disk(kA, 2))};
  using Set = std::set<std::string>;
  auto cut = [&](const std::vector<Volume>& volumes, const Set& named) {
    return CutOf(Uses(volumes, named), top);
  };
  const auto all = cut(chain, {top});
  ASSERT_TRUE(all.has_value());
  EXPECT_EQ(all->base, "image.debian");
  EXPECT_EQ(all->spare, (Set{Disk(kA), Disk(kA, 1), Disk(kA, 2)}));
  // A snapshot's, or a clone's, is what the top then stands on.
  const auto some = cut(chain, {top, Disk(kA, 1)});
  ASSERT_TRUE(some.has_value());
  EXPECT_EQ(some->base, Disk(kA, 1));
  EXPECT_EQ(some->spare, Set{Disk(kA, 2)});
  EXPECT_FALSE(cut(chain, {top, Disk(kA, 2)}).has_value());
  // Another stands on it, named or not.
  auto forked = chain;
  forked.push_back(On(Disk(kB), Disk(kA, 2)));
  EXPECT_FALSE(cut(forked, {top}).has_value());
  forked.back() = On(Disk(kB), Disk(kA));
  EXPECT_EQ(cut(forked, {top})->base, Disk(kA));
  // A copy that stands on nothing.
  auto bare = chain;
  bare[1].backing.clear();
  EXPECT_EQ(cut(bare, {top})->base, "");
  EXPECT_EQ(cut(bare, {top})->spare.size(), 3U);
  EXPECT_FALSE(CutOf(Uses(chain, {top}), "none").has_value());
}

}  // namespace
}  // namespace sbxfs
