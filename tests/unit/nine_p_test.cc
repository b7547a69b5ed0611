// Which way mounts come into a guest, and what QEMU and the guest are told for
// 9p.
#include "backend/mount/nine_p.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/domain_xml.h"

namespace sbxfs {
namespace {

using testing::HasSubstr;

MountSpec SomeMount() {
  MountSpec mount;
  mount.name = "src";
  mount.location = "/srv/it's";
  mount.mount_point = "/srv/it's";
  return mount;
}

struct WayCase {
  MountType type;
  bool unsupported;
  MountEnds ends;
  bool nine_p;
  std::string why;
};

TEST(NinePTest, IsChosenWhereQemuHasTheOwnersRights) {
  using enum MountType;
  const MountEnds good{true, 1000, 1000, 1000};
  const WayCase kCases[] = {
      {k9p, false, good, true, ""},
      {kAuto, false, good, false, ""},
      {kReverseSshfs, false, good, false, ""},
      {kVirtiofs, false, good, false,
       "virtiofsd would run with root's rights, and know no owners but the "
       "host's"},
      {k9p, true, good, false, "mountTypesUnsupported has 9p"},
      {k9p,
       false,
       {false, 1000, 1000, 1000},
       false,
       "QEMU, which serves 9p, is on another machine"},
      {k9p,
       false,
       {true, 1000, 64055, 1000},
       false,
       "QEMU, which serves 9p, runs as uid 64055, and must not read files for "
       "uid 1000; use qemu:///session"},
      {k9p,
       false,
       {true, 0, 0, 1000},
       false,
       "by 9p the files of uid 0 were not those of the guest's user, who has "
       "uid 1000; see user.uid"},
      {k9p,
       false,
       {true, 1001, 1001, 1000},
       false,
       "by 9p the files of uid 1001 were not those of the guest's user, who "
       "has uid 1000; see user.uid"},
  };
  for (const auto& one : kCases) {
    Spec spec;
    spec.mount_type = one.type;
    if (one.unsupported) spec.mount_types_unsupported = {k9p};
    const MountWay way = ChooseMountWay(spec, one.ends);
    EXPECT_EQ(way.nine_p, one.nine_p) << one.why;
    EXPECT_EQ(way.why, one.why);
  }
}

TEST(NinePTest, ATagTellsAllButTheName) {
  const MountSpec mount = SomeMount();
  EXPECT_TRUE(IsTag(TagOf(mount)));
  EXPECT_LE(TagOf(mount).size(), 31u);
  MountSpec other = mount;
  other.name = "another";
  EXPECT_EQ(TagOf(other), TagOf(mount));
  const std::vector<void (*)(MountSpec&)> kChanges = {
      [](MountSpec& m) { m.location = "/srv"; },
      [](MountSpec& m) { m.mount_point = "/srv"; },
      [](MountSpec& m) { m.writable = true; },
      [](MountSpec& m) { m.msize = 65536; },
      [](MountSpec& m) { m.ninep_cache = "none"; },
      [](MountSpec& m) { m.ninep_security = "mapped-xattr"; },
      [](MountSpec& m) { m.ninep_version = "9p2000.u"; },
  };
  for (size_t i = 0; i < kChanges.size(); ++i) {
    MountSpec changed = mount;
    kChanges[i](changed);
    EXPECT_NE(TagOf(changed), TagOf(mount)) << i;
  }
}

TEST(NinePTest, TheDomainHasADirectoryForEach) {
  Spec spec;
  spec.mounts = {SomeMount()};
  DomainInput input;
  input.name = "box";
  input.uuid = "c0ffee00-0000-4000-8000-000000000001";
  input.directories = DirectoriesOf(spec);
  const std::string xml = DomainXml(input);
  EXPECT_THAT(xml, HasSubstr("<filesystem type=\"mount\" accessmode=\"squash\" "
                             "multidevs=\"remap\">"));
  EXPECT_THAT(xml, HasSubstr("<source dir=\"/srv/it's\"/>"));
  EXPECT_THAT(xml, HasSubstr("<readonly/>"));
  EXPECT_EQ(ParseDomain(xml).tags,
            std::set<std::string>{TagOf(spec.mounts[0])});

  spec.mounts[0].writable = true;
  spec.mounts[0].ninep_security = "mapped-xattr";
  input.directories = DirectoriesOf(spec);
  EXPECT_THAT(DomainXml(input), HasSubstr("accessmode=\"mapped\""));
  EXPECT_EQ(DomainXml(input).find("<readonly/>"), std::string::npos);
  spec.plain = true;
  EXPECT_TRUE(DirectoriesOf(spec).empty());
}

TEST(NinePTest, TheGuestIsToldWithoutASpaceForItsShell) {
  MountSpec mount = SomeMount();
  EXPECT_THAT(NinePMountScript(mount), HasSubstr("p='/srv/it'\\''s'; "));
  EXPECT_THAT(NinePMountScript(mount),
              HasSubstr("mount -t 9p -o trans=virtio,version=9p2000.L,"
                        "msize=131072,cache=mmap,nosuid,nodev,ro " +
                        TagOf(mount) + " \"$p\""));
  mount.writable = true;
  mount.msize = 4096;
  mount.ninep_cache = "loose";
  mount.ninep_version = "9p2000.u";
  EXPECT_THAT(
      NinePMountScript(mount),
      HasSubstr("version=9p2000.u,msize=4096,cache=loose,nosuid,nodev " +
                TagOf(mount)));
  EXPECT_THAT(UnmountScript("/a b", true), HasSubstr("umount -l '/a b'"));
  EXPECT_THAT(UnmountScript("/a b", false), HasSubstr("umount '/a b'"));
}

}  // namespace
}  // namespace sbxfs
