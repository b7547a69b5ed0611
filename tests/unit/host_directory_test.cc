// Which way mounts come into a guest, and what QEMU and the guest are told for
// 9p.
#include "backend/mount/host_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/domain_xml.h"
#include "backend/virsh_changes.h"

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
  MountType unsupported;
  MountEnds ends;
  MountType way;
  std::string why;
};

TEST(HostDirectoryTest, IsChosenWhereTheHypervisorHasTheOwnersRights) {
  using enum MountType;
  const MountEnds good{true, 1000, 1000, 1000};
  const MountEnds none{true, 1000, 1000, 1000, "virtiofsd is not installed"};
  const MountEnds other{true, 1000, 1000, 1234};
  const MountEnds far{false, 1000, 1000, 1000};
  const MountEnds system{true, 1000, 64055, 1000, "it has root's rights"};
  const WayCase kCases[] = {
      {k9p, kAuto, good, k9p, ""},
      {kVirtiofs, kAuto, good, kVirtiofs, ""},
      {kAuto, kAuto, good, kReverseSshfs, ""},
      {kReverseSshfs, kAuto, good, kReverseSshfs, ""},
      {k9p, kVirtiofs, good, k9p, ""},
      {k9p, k9p, good, kReverseSshfs, "mountTypesUnsupported has 9p"},
      {kVirtiofs, kVirtiofs, good, kReverseSshfs,
       "mountTypesUnsupported has virtiofs"},
      {k9p, kAuto, far, kReverseSshfs,
       "the hypervisor, which serves 9p, is another machine"},
      {kVirtiofs, kAuto, far, kReverseSshfs,
       "the hypervisor, which serves virtiofs, is another machine"},
      {k9p, kAuto, system, kReverseSshfs,
       "QEMU, which serves 9p, runs as uid 64055, and must not read files for "
       "uid 1000; use qemu:///session"},
      {kVirtiofs, kAuto, none, kReverseSshfs, "virtiofsd is not installed"},
      {k9p, kAuto, other, kReverseSshfs,
       "by 9p the files of uid 1000 were not those of the guest's user, who "
       "has uid 1234; see user.uid"},
      {kVirtiofs, kAuto, other, kVirtiofs, ""},
  };
  for (const auto& one : kCases) {
    Spec spec;
    spec.mount_type = one.type;
    if (one.unsupported != kAuto) {
      spec.mount_types_unsupported = {one.unsupported};
    }
    const MountWay way = ChooseMountWay(spec, one.ends);
    EXPECT_EQ(WordFor(way.type), WordFor(one.way)) << one.why;
    EXPECT_EQ(way.why, one.why);
  }
}

TEST(HostDirectoryTest, VirtiofsTellsWhoseFilesAreWhose) {
  MountSpec mount = SomeMount();
  mount.virtiofs_queue_size = 512;
  const IdMap ids{1000, 1234, 100, 200};
  const std::string tag = VirtiofsTag(mount, ids);
  EXPECT_TRUE(IsTag(tag) && IsVirtiofsTag(tag));
  EXPECT_FALSE(IsVirtiofsTag(TagOf(mount)));
  EXPECT_LE(tag.size(), 31u);
  EXPECT_EQ(VirtiofsXml(mount, ids),
            "<filesystem type=\"mount\">\n"
            "  <driver type=\"virtiofs\" queue=\"512\"/>\n"
            "  <source dir=\"/srv/it's\"/>\n"
            "  <target dir=\"" +
                tag +
                "\"/>\n"
                "  <idmap>\n"
                "    <uid start=\"1234\" target=\"1000\" count=\"1\"/>\n"
                "    <gid start=\"200\" target=\"100\" count=\"1\"/>\n"
                "  </idmap>\n"
                "  <readonly/>\n"
                "</filesystem>\n");
  mount.writable = true;
  EXPECT_EQ(VirtiofsXml(mount, ids).find("<readonly/>"), std::string::npos);
  EXPECT_NE(VirtiofsTag(mount, ids), tag);
  EXPECT_NE(VirtiofsTag(mount, {1000, 1235, 100, 200}),
            VirtiofsTag(mount, ids));
}

TEST(HostDirectoryTest, VirtiofsdsAreGivenTheGuestsMemory) {
  DomainInput input;
  input.name = "box";
  input.uuid = "c0ffee00-0000-4000-8000-000000000001";
  const std::string plain = DomainXml(input);
  EXPECT_FALSE(ParseDomain(plain).shared_memory);
  input.shared_memory = true;
  const std::string shared = DomainXml(input);
  EXPECT_TRUE(ParseDomain(shared).shared_memory);
  // It goes with mountType; what others asked for stays.
  EXPECT_FALSE(ParseDomain(KeepForeign(plain, shared)).shared_memory);
  std::string huge = shared;
  const std::string_view source = "<source type=\"memfd\"/>";
  ASSERT_NE(huge.find(source), huge.npos);
  huge.replace(huge.find(source), source.size(), "<hugepages/>");
  EXPECT_THAT(KeepForeign(plain, huge), HasSubstr("<hugepages/>"));
  EXPECT_THAT(KeepForeign(shared, huge), HasSubstr("<hugepages/>"));
  EXPECT_TRUE(ParseDomain(KeepForeign(shared, huge)).shared_memory);
}

TEST(HostDirectoryTest, ATagTellsAllButTheName) {
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

TEST(HostDirectoryTest, TheDomainHasADirectoryForEach) {
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

TEST(HostDirectoryTest, TheGuestIsToldWithoutASpaceForItsShell) {
  MountSpec mount = SomeMount();
  EXPECT_THAT(DirectoryMountScript(mount, TagOf(mount)),
              HasSubstr("p='/srv/it'\\''s'; "));
  EXPECT_THAT(DirectoryMountScript(mount, TagOf(mount)),
              HasSubstr("mount -t 9p -o trans=virtio,version=9p2000.L,"
                        "msize=131072,cache=mmap,nosuid,nodev,ro " +
                        TagOf(mount) + " \"$p\""));
  mount.writable = true;
  mount.msize = 4096;
  mount.ninep_cache = "loose";
  mount.ninep_version = "9p2000.u";
  EXPECT_THAT(
      DirectoryMountScript(mount, TagOf(mount)),
      HasSubstr("version=9p2000.u,msize=4096,cache=loose,nosuid,nodev " +
                TagOf(mount)));
  const std::string tag = VirtiofsTag(mount, {});
  EXPECT_THAT(DirectoryMountScript(mount, tag),
              HasSubstr("mount -t virtiofs -o nosuid,nodev " + tag + " "));
  EXPECT_THAT(UnmountScript("/a b", true), HasSubstr("umount -l '/a b'"));
  EXPECT_THAT(UnmountScript("/a b", false), HasSubstr("umount '/a b'"));
}

}  // namespace
}  // namespace sbxfs
