#include "backend/metadata.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

using std::chrono::nanoseconds;

Time At(int64_t count) {
  return Time(std::chrono::duration_cast<Time::duration>(nanoseconds(count)));
}

// Every byte there is, and what XML, base64 or libvirt might trip over.
std::string OddBytes() {
  std::string text =
      "a\r\nb\tc\x1b[31m ]]> <!-- & &amp; \" ' \xe2\x82\xac \xff\xfe\n";
  for (int byte = 0; byte < 256; ++byte) text += static_cast<char>(byte);
  return text;
}

Metadata Full() {
  Metadata m;
  m.uid = 1000;
  m.gid = 4294967294U;
  m.mode = 0750;
  m.machine = "0c5f2f3d <&> \xc3\xa4";
  m.files["status"] = {{}, 1001, 0660};
  m.files["config.yaml"] = {1002, {}, {}};
  m.created = At(1700000000123456789);
  m.used = At(1700000001000000000);
  m.config = OddBytes();
  m.config_time = At(-1);
  m.rejected = OddBytes() + "r";
  m.rejected_reason = "Cannot accept 'config.yaml': line 1, column 1: …";
  m.applied = "cpus: 2\n";
  m.user = "debian";
  m.guest_uid = 1001;
  m.ssh_port = 65535;
  m.host_key = "ssh-ed25519 AAAAC3Nza+/= root@box";
  m.authorized_keys = "ssh-ed25519 AAAA a\n# two\n";
  m.certificates_revoked = At(1700000003123000000);
  m.pool = "sbxfs";
  m.disk_volume = "box <&>.qcow2";
  m.seed_volume = "box.iso";
  m.console_volume = "box.log";
  m.image = "debian-12";
  m.booted = true;
  m.trashed_name = "box";
  m.trashed = At(1700000002000000001);
  return m;
}

void ExpectEqual(const Metadata& a, const Metadata& b) {
  EXPECT_EQ(a.uid, b.uid);
  EXPECT_EQ(a.gid, b.gid);
  EXPECT_EQ(a.mode, b.mode);
  EXPECT_EQ(a.machine, b.machine);
  EXPECT_EQ(a.files, b.files);
  EXPECT_EQ(a.created, b.created);
  EXPECT_EQ(a.used, b.used);
  EXPECT_EQ(a.config, b.config);
  EXPECT_EQ(a.config_time, b.config_time);
  EXPECT_EQ(a.rejected, b.rejected);
  EXPECT_EQ(a.rejected_reason, b.rejected_reason);
  EXPECT_EQ(a.applied, b.applied);
  EXPECT_EQ(a.user, b.user);
  EXPECT_EQ(a.certificates_revoked, b.certificates_revoked);
  EXPECT_EQ(a.guest_uid, b.guest_uid);
  EXPECT_EQ(a.ssh_port, b.ssh_port);
  EXPECT_EQ(a.host_key, b.host_key);
  EXPECT_EQ(a.authorized_keys, b.authorized_keys);
  EXPECT_EQ(a.pool, b.pool);
  EXPECT_EQ(a.disk_volume, b.disk_volume);
  EXPECT_EQ(a.seed_volume, b.seed_volume);
  EXPECT_EQ(a.console_volume, b.console_volume);
  EXPECT_EQ(a.image, b.image);
  EXPECT_EQ(a.booted, b.booted);
  EXPECT_EQ(a.trashed_name, b.trashed_name);
  EXPECT_EQ(a.trashed, b.trashed);
}

TEST(MetadataTest, ReadsBackWhatItWrote) {
  const auto back = ParseMetadata(FormatMetadata(Full()));
  ASSERT_TRUE(back);
  ExpectEqual(*back, Full());
}

TEST(MetadataTest, ReadsBackNothingAsNothing) {
  const auto back = ParseMetadata(FormatMetadata(Metadata()));
  ASSERT_TRUE(back);
  ExpectEqual(*back, Metadata());
}

TEST(MetadataTest, WritesThisText) {
  Metadata m;
  m.uid = 1000;
  m.gid = 100;
  m.config = "cpus: 2\r\n";
  m.ssh_port = 60022;
  m.created = At(1700000000123456789);
  EXPECT_EQ(FormatMetadata(m),
            "<sandbox>\n"
            "  <uid>1000</uid>\n"
            "  <gid>100</gid>\n"
            "  <mode>0700</mode>\n"
            "  <created>1700000000123456789</created>\n"
            "  <config encoding=\"base64\">Y3B1czogMg0K</config>\n"
            "  <sshPort>60022</sshPort>\n"
            "</sandbox>\n");
}

TEST(MetadataTest, FoundInADomainByItsNamespaceAlone) {
  const auto found = ParseMetadata(
      "<domain type='kvm'><name>sbx-a</name><metadata>"
      "<sandbox xmlns='urn:other'><uid>1</uid></sandbox>"
      "<o:sandbox xmlns:o='https://sbxfs.org/xmlns/sandbox/1'>"
      "<o:uid>2</o:uid></o:sandbox></metadata></domain>");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->uid, 2U);
}

TEST(MetadataTest, NoneThere) {
  for (const char* xml :
       {"", "no xml", "<sandbox>", "<domain/>", "<domain><metadata/></domain>",
        "<domain><metadata><sandbox/></metadata></domain>",
        "<network><metadata><s:sandbox "
        "xmlns:s='https://sbxfs.org/xmlns/sandbox/1'/></metadata></network>",
        "<!DOCTYPE sandbox [<!ENTITY a "
        "'b'>]><sandbox><uid>1</uid></sandbox>"}) {
    EXPECT_FALSE(ParseMetadata(xml)) << xml;
  }
}

TEST(MetadataTest, HostileValuesAreLeftAtTheirDefaults) {
  const std::string long_name =
      fmt::format("<trashedName>{:a>59}</trashedName>", "");
  const char* const kValues[] = {
      "<uid>-1</uid>",
      "<uid>4294967295</uid>",
      "<uid>4294967296</uid>",
      "<uid>0x10</uid>",
      "<uid>1 2</uid>",
      "<uid/>",
      "<gid>99999999999999999999</gid>",
      "<mode>8</mode>",
      "<mode>10000</mode>",
      "<mode>rwx</mode>",
      "<machine>a\nb</machine>",
      "<machine>a&#9;b</machine>",
      "<created>soon</created>",
      "<created>9223372036854775808</created>",
      "<config encoding='base64'>Y3B1czogMg0</config>",
      "<config encoding='base64'>&lt;&gt;</config>",
      "<user>root&#10;ProxyCommand evil</user>",
      "<user>a b</user>",
      "<user>%h</user>",
      "<sshPort>65536</sshPort>",
      "<sshPort>-22</sshPort>",
      "<sshPort>22,x</sshPort>",
      "<hostKey>ssh-ed25519 AAAA&#10;* ssh-ed25519 BBBB</hostKey>",
      "<hostKey>a\"b</hostKey>",
      "<pool>a/b</pool>",
      "<diskVolume>../../etc/shadow</diskVolume>",
      "<diskVolume>..</diskVolume>",
      "<seedVolume>/dev/sda</seedVolume>",
      "<consoleVolume>a&#10;b</consoleVolume>",
      "<image>.</image>",
      "<booted>true</booted>",
      "<trashedName>.host</trashedName>",
      "<trashedName>a/b</trashedName>",
      "<trashedName>a&#10;b</trashedName>",
      long_name.c_str(),
      "<unknown>1</unknown>"};
  for (const char* value : kValues) {
    const auto found =
        ParseMetadata(fmt::format("<sandbox>{}</sandbox>", value));
    ASSERT_TRUE(found) << value;
    SCOPED_TRACE(value);
    ExpectEqual(*found, Metadata());
  }
}

TEST(MetadataTest, RefusesToWriteWhatItWouldNotRead) {
  const struct {
    std::string Metadata::*member;
    std::string value;
    const char* name;
  } kBad[] = {{&Metadata::user, "a b", "user"},
              {&Metadata::machine, std::string("a\0b", 3), "machine"},
              {&Metadata::machine, "a\xff", "machine"},
              {&Metadata::pool, "a/b", "pool"},
              {&Metadata::image, "a\x1b", "image"},
              {&Metadata::host_key, "a\nb", "hostKey"},
              {&Metadata::trashed_name, "-a", "trashedName"}};
  for (const auto& [member, value, name] : kBad) {
    Metadata m;
    m.*member = value;
    try {
      (void)FormatMetadata(m);
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.Errno(), EINVAL);
      EXPECT_EQ(error.Sentence(),
                fmt::format("Cannot store '{}' in the domain: its value has "
                            "characters that do not belong there",
                            name));
    }
  }
}

}  // namespace
}  // namespace sbxfs
