// Refusals by the table: one system call each, its errno, and the whole
// sentence that is then in an error file.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <fstream>
#include <ostream>
#include <set>
#include <string>
#include <string_view>

#include "tests/qemu/refusals.h"

namespace sbxfs {
namespace {

enum class How {
  kMkdir,
  kWrite,     // text into what is there
  kWriteNow,  // with O_NONBLOCK
  kCreate,    // as `>` of a shell makes a file, with the text
  kUnlink,
  kRmdir,
  kMove,  // to the text
  kSymlink,
  kFifo,
};

struct Refusal {
  How how;
  std::string_view path;  // below the mount
  std::string_view text;
  int error;
  std::string_view told;  // whose `error` has it
  std::string_view sentence;
};

void PrintTo(const Refusal& refusal, std::ostream* out) {
  *out << refusal.path << " '" << refusal.text.substr(0, 60) << '\'';
}

constexpr std::string_view kBox = "box";
constexpr std::string_view kHost = ".host";

#define LONGEST "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
static_assert(sizeof LONGEST - 1 == 58);
#define VERBS                                                               \
  "start, stop, kill, restart, pause, resume, save, reset, factory-reset, " \
  "destroy and wait STATE"
#define CPUS "it must be a whole number from 1 to 255"
#define MEMORY "it must be a size from 16MiB to 16TiB, as in '4GiB'"
#define DISK "it must be a size from 1MiB to 64TiB, as in '4GiB'"
#define PORT "it must be a port from 1 to 65535, or 0 for one that is free"
#define GUEST_PORT \
  "a guest's port is named as in '3000', '53.udp' or '4000-4010'"
#define READ_ONLY \
  "it is read-only; .host/README names the files that take writes"
#define FURNITURE \
  "it belongs to the tree; rmdir of a sandbox takes the whole of it"
#define FIRST "a name begins with a letter or a digit; choose another one"
#define LETTERS \
  "a name is made of letters, digits, '.', '_' and '-'; choose another one"
#define NO_IMAGE                                                         \
  "it is no disk image: neither qcow2 nor ISO 9660, and without a boot " \
  "sector or partition table; give a cloud image in qcow2 form"

constexpr std::array kRefusals = {
    // Bad names.
    Refusal{How::kMkdir, ".box", "", EINVAL, kHost,
            "Cannot make '.box': " FIRST},
    Refusal{How::kMkdir, "-box", "", EINVAL, kHost,
            "Cannot make '-box': " FIRST},
    Refusal{How::kMkdir, "a box", "", EINVAL, kHost,
            "Cannot make 'a box': " LETTERS},
    Refusal{How::kMkdir, "b\xc3\xbcx", "", EINVAL, kHost,
            "Cannot make 'b\xc3\xbcx': " LETTERS},
    Refusal{How::kMkdir, "crate.yaml", "", EINVAL, kHost,
            "Cannot make 'crate.yaml': a name cannot end in .yaml, which "
            "stands for its config.yaml; choose another one"},
    Refusal{How::kMkdir, LONGEST "x", "", ENAMETOOLONG, kHost,
            "Cannot make '" LONGEST
            "x': a name has 58 bytes at most, this one 59; choose a shorter "
            "one"},
    Refusal{How::kCreate, "_new.yaml", "cpus: 1\n", EINVAL, kHost,
            "Cannot make '_new': " FIRST},
    Refusal{How::kCreate, LONGEST "y.yaml", "cpus: 1\n", ENAMETOOLONG, kHost,
            "Cannot make '" LONGEST
            "y': a name has 58 bytes at most, this one 59; choose a shorter "
            "one"},
    Refusal{How::kMove, "box", "-x", EINVAL, kBox,
            "Cannot rename to '-x': " FIRST},
    Refusal{How::kMove, ".host/trash/gone", "-x", EINVAL, ".host/trash/gone",
            "Cannot bring back '-x': " FIRST},
    Refusal{How::kCreate, ".host/images/-x", "x", EINVAL, kHost,
            "Cannot make image '-x': " FIRST},
    // Taken names.
    Refusal{How::kMkdir, "BOX", "", EEXIST, kHost,
            "Cannot create 'BOX': 'box' exists, whose guest has the same host "
            "name, lima-box; choose another"},
    Refusal{How::kMkdir, "web-ONE", "", EEXIST, kHost,
            "Cannot create 'web-ONE': 'Web.one' exists, whose guest has the "
            "same host name, lima-web-one; choose another"},
    Refusal{How::kMkdir, "theirs", "", EEXIST, kHost,
            "Cannot create 'theirs': libvirt has a domain of that name; choose "
            "another"},
    Refusal{How::kMove, "box", "Web.one", EEXIST, kBox,
            "Cannot rename 'box' to 'Web.one': it exists"},
    Refusal{How::kMove, "box", "theirs", EEXIST, kBox,
            "Cannot rename 'box' to 'theirs': libvirt has a domain of that "
            "name; choose another"},
    Refusal{How::kCreate, ".host/images/blank", "x", EEXIST, kHost,
            "Cannot write image 'blank': there is one; rm it first"},
    // What has no place here.
    Refusal{How::kMkdir, "box/inner", "", EPERM, kBox,
            "Cannot make 'inner': no directory can be made here; mkdir at the "
            "root makes a sandbox"},
    Refusal{How::kMkdir, ".host/images/deep", "", EPERM, kHost,
            "Cannot make 'deep': no directory can be made here; mkdir at the "
            "root makes a sandbox"},
    Refusal{How::kCreate, "note", "x\n", EPERM, kHost,
            "Cannot create 'note': sandboxes are made here; mkdir 'note', or "
            "copy a config to 'note.yaml'"},
    Refusal{How::kCreate, "box/statsu", "start\n", EPERM, kBox,
            "Cannot create 'statsu': there is no such file here; did you mean "
            "'status'?"},
    Refusal{How::kCreate, ".host/lst", "x\n", EPERM, kHost,
            "Cannot create 'lst': there is no such file here; did you mean "
            "'list'?"},
    Refusal{How::kMove, "box", ".host/inner", EPERM, kBox,
            "Cannot move 'box' to 'inner': a sandbox lives at the root of the "
            "mount"},
    Refusal{How::kSymlink, "box/link", "cpus", EPERM, kBox,
            "Cannot make 'link': the tree has directories and plain files "
            "alone"},
    Refusal{How::kFifo, "fifo", "", EPERM, kHost,
            "Cannot make 'fifo': the tree has directories and plain files "
            "alone"},
    // Verbs: unknown ones, and known ones in the wrong state.
    Refusal{How::kWrite, "box/status", "boot\n", EINVAL, kBox,
            "Cannot do 'boot': no such verb; there are " VERBS},
    Refusal{How::kWrite, "box/status", "START\n", EINVAL, kBox,
            "Cannot do 'START': no such verb; there are " VERBS},
    Refusal{How::kWrite, "box/status", "wait asleep\n", EINVAL, kBox,
            "Cannot wait for 'asleep': no such state; there are provisioning, "
            "stopped, starting, running, stopping, paused, saved, crashed, "
            "destroying and unreachable"},
    Refusal{How::kWriteNow, "box/status", "wait paused", EAGAIN, kBox,
            "Cannot wait for 'paused' without blocking: it is stopped"},
    Refusal{How::kWrite, "box/status", "start\nstop\n", EINVAL, kBox,
            "Cannot write 'status': these are several lines, and a line is a "
            "command; write one at a time"},
    Refusal{How::kWrite, "box/status", "start\x01\n", EINVAL, "box",
            "Cannot write 'status': there is a control character in it; write "
            "plain text"},
    Refusal{How::kWrite, "box/status", "pause\n", EBUSY, kBox,
            "Cannot pause 'box': it is stopped; start it first"},
    Refusal{How::kWrite, "box/status", "save\n", EBUSY, kBox,
            "Cannot save 'box': it is stopped; start it first"},
    Refusal{How::kWrite, "box/status", "reset\n", EBUSY, kBox,
            "Cannot reset 'box': it is stopped; start it first"},
    Refusal{How::kWrite, "box/status", "resume\n", EBUSY, kBox,
            "Cannot resume 'box': it is stopped; write start"},
    Refusal{How::kWrite, "run/status", "destroy\n", EBUSY, "run",
            "Cannot destroy 'run': it is running; write stop or kill first"},
    Refusal{How::kWrite, "kept/status", "stop\n", EBUSY, "kept",
            "Cannot stop 'kept': it is saved; start it first, or write kill to "
            "drop its memory"},
    Refusal{How::kWrite, "kept/status", "pause\n", EBUSY, "kept",
            "Cannot pause 'kept': it is saved; start it first"},
    Refusal{How::kWrite, "kept/status", "resume\n", EBUSY, "kept",
            "Cannot resume 'kept': it is saved; write start"},
    Refusal{How::kWrite, "kept/status", "destroy\n", EBUSY, "kept",
            "Cannot destroy 'kept': it is saved; write stop or kill first"},
    Refusal{How::kWrite, ".host/trash/gone/status", "start\n", EACCES,
            ".host/trash/gone",
            "Cannot write 'status': sandbox 'gone' is in the trash; mv it out "
            "first"},
    // rmdir and mv in the wrong state.
    Refusal{How::kRmdir, "run", "", EBUSY, "run",
            "Cannot remove 'run': it is running; write stop to its status "
            "first"},
    Refusal{How::kMove, "run", "other", EBUSY, "run",
            "Cannot rename 'run' to 'other': it is running; write stop to its "
            "status first"},
    Refusal{How::kRmdir, "kept", "", EBUSY, "kept",
            "Cannot remove 'kept': its memory is saved; start it, or write "
            "kill to its status to drop that"},
    Refusal{How::kMove, "kept", "other", EBUSY, "kept",
            "Cannot rename 'kept' to 'other': its memory is saved; start it, "
            "or write kill to its status to drop that"},
    Refusal{How::kRmdir, "safe", "", EPERM, "safe",
            "Cannot remove 'safe': it is protected; chmod u+w 'safe' first"},
    Refusal{How::kMove, "safe", "other", EPERM, "safe",
            "Cannot rename 'safe' to 'other': it is protected; chmod u+w "
            "'safe' first"},
    // Writes to read-only files.
    Refusal{How::kWrite, "box/README", "x\n", EACCES, kBox,
            "Cannot write 'README': " READ_ONLY},
    Refusal{How::kWrite, "box/reason", "x\n", EACCES, kBox,
            "Cannot write 'reason': " READ_ONLY},
    Refusal{How::kWrite, "box/usage", "x\n", EACCES, kBox,
            "Cannot write 'usage': " READ_ONLY},
    Refusal{How::kWrite, "box/console.log", "x\n", EACCES, kBox,
            "Cannot write 'console.log': " READ_ONLY},
    Refusal{How::kWrite, ".host/list", "x\n", EACCES, kHost,
            "Cannot write 'list': " READ_ONLY},
    Refusal{How::kWrite, ".host/capacity", "x\n", EACCES, kHost,
            "Cannot write 'capacity': " READ_ONLY},
    // unlink, rmdir and mv of what belongs to the tree.
    Refusal{How::kUnlink, "box/status", "", EPERM, kBox,
            "Cannot remove 'status': " FURNITURE},
    Refusal{How::kUnlink, "box/ip", "", EPERM, kBox,
            "Cannot remove 'ip': " FURNITURE},
    Refusal{How::kRmdir, "box/mounts", "", EPERM, kBox,
            "Cannot remove 'mounts': " FURNITURE},
    Refusal{How::kRmdir, ".host", "", EPERM, kHost,
            "Cannot remove '.host': " FURNITURE},
    Refusal{How::kRmdir, ".host/images", "", EPERM, kHost,
            "Cannot remove 'images': " FURNITURE},
    Refusal{How::kMove, "box/cpus", "box/memory", EPERM, kBox,
            "Cannot rename 'cpus' to 'memory': it belongs to the tree and "
            "keeps its place"},
    Refusal{How::kUnlink, ".host/images/blank", "", EBUSY, kHost,
            "Cannot remove image 'blank': a sandbox stands on it; rmdir that "
            "first (and look into .host/trash)"},
    // Single values.
    Refusal{How::kWrite, "box/cpus", "0\n", EINVAL, kBox,
            "Cannot set cpus of 'box' to '0': cpus is '0'; " CPUS},
    Refusal{How::kWrite, "box/cpus", "-1\n", EINVAL, kBox,
            "Cannot set cpus of 'box' to '-1': cpus is '-1'; " CPUS},
    Refusal{How::kWrite, "box/cpus", "many\n", EINVAL, kBox,
            "Cannot set cpus of 'box' to 'many': cpus is 'many'; " CPUS},
    Refusal{How::kWrite, "box/cpus", " \n", EINVAL, kBox,
            "Cannot set 'cpus': the line is empty; write a value"},
    Refusal{How::kWrite, "box/memory", "1MiB\n", EINVAL, kBox,
            "Cannot set memory of 'box' to '1MiB': memory is '1MiB'; " MEMORY},
    Refusal{How::kWrite, "box/disk", "big\n", EINVAL, kBox,
            "Cannot set disk of 'box' to 'big': disk is 'big'; " DISK},
    Refusal{How::kWrite, "run/disk", "32MiB\n", EINVAL, "run",
            "Cannot set disk of 'run' to '32MiB': disk: 32MiB is smaller than "
            "its disk, which has 64MiB; a disk only grows"},
    Refusal{How::kWrite, "box/autostart", "maybe\n", EINVAL, kBox,
            "Cannot set 'autostart': 'maybe' is neither yes nor no; write one "
            "of them"},
    Refusal{How::kWrite, "box/description", "a\x01z\n", EINVAL, kBox,
            "Cannot write 'description': there is a control character in it; "
            "write plain text"},
    Refusal{How::kWrite, "box/authorized_keys", "ssh-ed25519 nonsense\n",
            EINVAL, kBox,
            "Cannot accept 'authorized_keys': line 1: the key is not of the "
            "type 'ssh-ed25519' it says"},
    Refusal{How::kWrite, ".host/authorized_keys", "nonsense\n", EINVAL, kHost,
            "Cannot accept 'authorized_keys': line 1: 'nonsense' is neither a "
            "key type nor an option"},
    // Ports out of range, and such as others have.
    Refusal{
        How::kWrite, "box/ssh_port", "-1\n", EINVAL, kBox,
        "Cannot set ssh_port of 'box' to '-1': ssh.localPort is '-1'; " PORT},
    Refusal{How::kWrite, "box/ssh_port", "65536\n", EINVAL, kBox,
            "Cannot set ssh_port of 'box' to '65536': ssh.localPort is "
            "'65536'; " PORT},
    Refusal{
        How::kWrite, "box/ssh_port", "ssh\n", EINVAL, kBox,
        "Cannot set ssh_port of 'box' to 'ssh': ssh.localPort is 'ssh'; " PORT},
    Refusal{How::kWrite, "box/ssh_port", "80\n", EACCES, kBox,
            "Cannot set ssh_port of 'box' to '80': ssh port 80 is below 1024, "
            "which only a guest of root's that QEMU runs as root can have; "
            "choose another"},
    Refusal{How::kWrite, "box/ssh_port", "2345\n", EADDRINUSE, kBox,
            "Cannot set ssh_port of 'box' to '2345': ssh port 2345 is taken by "
            "sandbox 'Web.one'; choose another"},
    Refusal{How::kCreate, "box/ports/70000", "8080\n", EINVAL, kBox,
            "Cannot forward port '70000' of 'box' to '8080': " GUEST_PORT},
    Refusal{
        How::kCreate, "box/ports/80", "70000\n", EINVAL, kBox,
        "Cannot forward port '80' of 'box' to '70000': '70000' is no port "
        "of the host; write [ADDRESS:]PORT, as in '8080' or '0.0.0.0:8080'"},
    Refusal{How::kCreate, "box/mounts/src", "relative\n", EINVAL, kBox,
            "Cannot mount 'relative' as 'src' in 'box': 'relative' is no "
            "absolute path; write LOCATION, or LOCATION:w for a writable one"},
    Refusal{How::kCreate, "box/mounts/src", "/nonexistent/dir\n", ENOENT, kBox,
            "Cannot mount '/nonexistent/dir' as 'src' in 'box': "
            "'/nonexistent/dir' does not exist; mkdir it first"},
    Refusal{How::kCreate, "box/secrets/a b", "x\n", EINVAL, kBox,
            "Cannot set secret 'a b' of 'box': a name is made of letters, "
            "digits and '_', does not begin with a digit and has 128 bytes at "
            "most"},
    // What is no image.
    Refusal{How::kCreate, ".host/images/text", "just some words\n", EINVAL,
            kHost, "Cannot use 'text': " NO_IMAGE},
    Refusal{How::kCreate, ".host/images/zip", "\x1f\x8b\x08 and more", EINVAL,
            kHost,
            "Cannot use 'zip': it is compressed, and cut short or damaged; "
            "fetch or copy it again"},
    Refusal{How::kCreate, ".host/images/page", "<!DOCTYPE html><html>404",
            EINVAL, kHost,
            "Cannot use 'page': it is a web page, of a download that failed "
            "perhaps; look into it and fetch the image again"},
    // Bad YAML, with line and column.
    Refusal{How::kWrite, "box/config.yaml", "cpus: 2\ncpuz: 3\n", EINVAL, kBox,
            "Cannot accept 'config.yaml': line 2, column 1: unknown key "
            "'cpuz'; did you mean 'cpus'?"},
    Refusal{
        How::kWrite, "box/config.yaml", "cpus: two\n", EINVAL, kBox,
        "Cannot accept 'config.yaml': line 1, column 7: cpus is 'two'; " CPUS},
    Refusal{How::kWrite, "box/config.yaml", "cpus: 2\ncpus: 3\n", EINVAL, kBox,
            "Cannot accept 'config.yaml': line 2, column 1: duplicate key "
            "'cpus', first on line 1; remove one of them"},
    Refusal{How::kWrite, "box/config.yaml", "cpus: [\n", EINVAL, kBox,
            "Cannot accept 'config.yaml': line 1, column 7: a bracket that is "
            "opened here never closes"},
    Refusal{How::kWrite, "box/config.yaml", "ssh:\n  localPort: 70000\n",
            EINVAL, kBox,
            "Cannot accept 'config.yaml': line 2, column 14: ssh.localPort is "
            "'70000'; " PORT},
    Refusal{How::kWrite, "box/config.yaml", "images: blank\n", EINVAL, kBox,
            "Cannot accept 'config.yaml': line 1, column 9: images is 'blank'; "
            "it must be a list of images, each with its location, as in '- "
            "location: debian-12'"},
    Refusal{How::kWrite, "box/config.yaml", "memory: 4XiB\n", EINVAL, kBox,
            "Cannot accept 'config.yaml': line 1, column 9: memory is "
            "'4XiB'; " MEMORY},
    Refusal{How::kWrite, "box/config.yaml", "- a\n- b\n", EINVAL, kBox,
            "Cannot accept 'config.yaml': line 1, column 1: the text is a "
            "list; it must be keys with their values, as in 'cpus: 2'"},
    Refusal{How::kWrite, "box/config.yaml", "cpus: 1\n\tmemory: 2\n", EINVAL,
            kBox,
            "Cannot accept 'config.yaml': line 2, column 1: a tab indents this "
            "line; YAML takes spaces alone"},
    Refusal{How::kWrite, "box/config.yaml", "cpus: 1\n---\ncpus: 2\n", EINVAL,
            kBox,
            "Cannot accept 'config.yaml': line 2, column 1: another document "
            "begins here; leave one, and check the indentation"},
    Refusal{How::kWrite, "box/config.yaml", "arch: vax\n", EINVAL, kBox,
            "Cannot accept 'config.yaml': line 1, column 7: arch is 'vax'; it "
            "must be one of x86_64, aarch64, armv7l, riscv64, or default"},
    Refusal{How::kWrite, "box/config.yaml", "images:\n- location: ftp://x/y\n",
            EINVAL, kBox,
            "Cannot accept 'config.yaml': line 2, column 13: "
            "images[0].location is 'ftp://x/y'; it must be a name in "
            ".host/images, an absolute path or an https URL"},
    Refusal{How::kWrite, "box/config.yaml",
            "images:\n- location: blank\n  digest: md5:12\n", EINVAL, kBox,
            "Cannot accept 'config.yaml': line 3, column 11: images[0].digest "
            "is 'md5:12'; it must be 'sha256:' and 64, or 'sha512:' and 128 "
            "hexadecimal digits"},
    Refusal{How::kWrite, "box/status", "start\n", EINVAL, kBox,
            "Cannot start 'box': config.yaml.rejected is there (Cannot accept "
            "'config.yaml': line 3, column 11: images[0].digest is 'md5:12'; "
            "it must be 'sha256:' and 64, or 'sha512:' and 128 hexadecimal "
            "digits); mend config.yaml, or rm config.yaml.rejected"},
    Refusal{How::kCreate, "new.yaml", "cpuz: 2\n", EINVAL, kHost,
            "Cannot accept 'config.yaml': line 1, column 1: unknown key "
            "'cpuz'; did you mean 'cpus'?"},
    Refusal{How::kWrite, ".host/defaults.yaml", "memory: 4XiB\n", EINVAL, kHost,
            "Cannot accept 'defaults.yaml': line 1, column 9: memory is "
            "'4XiB'; " MEMORY},
    Refusal{How::kWrite, ".host/override.yaml", "cpus: two\n", EINVAL, kHost,
            "Cannot accept 'override.yaml': line 1, column 7: cpus is "
            "'two'; " CPUS},
    // Another hypervisor.
    Refusal{How::kWrite, ".host/uri", "test:///default\n", EBUSY, kHost,
            "Cannot change to 'test:///default': it is another hypervisor; "
            "mount that one in a directory of its own"},
};
static_assert(kRefusals.size() >= 60);

class RefusalTableTest : public RefusalTest {
 protected:
  [[nodiscard]] Verdict Do(const Refusal& refusal) const {
    const std::string path = Dir() / refusal.path;
    const std::string text(refusal.text);
    switch (refusal.how) {
      case How::kMkdir:
        return Call([&] { return mkdir(path.c_str(), 0700); });
      case How::kWrite:
        return WriteText(path, text);
      case How::kWriteNow:
        return WriteText(path, text, O_NONBLOCK);
      case How::kCreate:
        return WriteText(path, text, O_CREAT);
      case How::kUnlink:
        return Call([&] { return unlink(path.c_str()); });
      case How::kRmdir:
        return Call([&] { return rmdir(path.c_str()); });
      case How::kMove:
        return Call(
            [&] { return rename(path.c_str(), (Dir() / text).c_str()); });
      case How::kSymlink:
        return Call([&] { return symlink(text.c_str(), path.c_str()); });
      case How::kFifo:
        return Call([&] { return mkfifo(path.c_str(), 0600); });
    }
    return {};
  }
};

TEST_F(RefusalTableTest, EachWithItsErrnoAndItsSentence) {
  for (const char* name : {"box", "Web.one", "run", "kept", "safe", "gone"}) {
    Mkdir(name);
  }
  ASSERT_EQ(Write("Web.one/ssh_port", "2345\n"), Verdict{});
  for (const char* name : {"run", "kept"}) {
    Boot(name);
    const std::string status = std::string(name) + "/status";
    // Overtakes the start, which would wait for ssh.
    ASSERT_TRUE(
        Eventually([&] { return Write(status, "pause\n").error == 0; }));
    ASSERT_EQ(Write(status, "resume\n"), Verdict{});
  }
  ASSERT_EQ(Write("kept/status", "save\n"), Verdict{});
  ASSERT_EQ(chmod((Dir() / "safe").c_str(), 0500), 0);
  ASSERT_EQ(rmdir((Dir() / "gone").c_str()), 0);
  const std::string xml = Dir().string() + ".xml";
  std::ofstream(xml) << "<domain type='qemu'><name>theirs</name><memory>32768"
                        "</memory><os><type>hvm</type></os></domain>";
  Virsh({"define", xml});
  const World world = World::Now();

  // No two alike, so that none passes by what another left in `error`.
  std::set<std::string_view> sentences;
  for (const Refusal& refusal : kRefusals) {
    SCOPED_TRACE(testing::PrintToString(refusal));
    EXPECT_TRUE(sentences.insert(refusal.sentence).second);
    EXPECT_TRUE(refusal.sentence.starts_with("Cannot "));
    EXPECT_FALSE(refusal.sentence.ends_with('.'));
    const Verdict verdict = Apart([&] { return Do(refusal); });
    if (refusal.told == kHost) {
      Refused(verdict, refusal.error, std::string(refusal.sentence));
    } else {
      RefusedIn(std::string(refusal.told), verdict, refusal.error,
                std::string(refusal.sentence));
    }
  }
  RecordProperty("refusals", static_cast<int>(sentences.size()));

  // And nothing came of any.
  EXPECT_TRUE(Eventually([&] { return World::Now() == world; }));
  EXPECT_EQ(Status("box"), "stopped");
  EXPECT_EQ(Status("run"), "running");
  EXPECT_EQ(Status("kept"), "saved");
  EXPECT_EQ(ReadText(Dir() / "box/cpus"), "1\n");
  Virsh({"undefine", "theirs"});
}

}  // namespace
}  // namespace sbxfs
