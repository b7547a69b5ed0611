// What is refused, each with its errno and its sentence.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

class RefusalTest : public BlankGuests {
 protected:
  // The newest line of .host/error without its time.
  [[nodiscard]] std::string HostError() const {
    const std::string text = ReadText(Host() / "error");
    const std::string line = text.substr(0, text.find('\n'));
    const auto at = line.find("Cannot ");
    return at == std::string::npos ? line : line.substr(at);
  }
  void Refused(const Verdict& verdict, int error,
               const std::string& sentence) const {
    EXPECT_EQ(verdict.error, error)
        << (verdict.error == 0 ? "success" : strerrorname_np(verdict.error))
        << ": " << sentence;
    EXPECT_EQ(HostError(), sentence);
  }
  // Refused with its sentence in the sandbox's error.
  void RefusedIn(const std::string& name, const Verdict& verdict, int error,
                 const std::string& sentence) const {
    EXPECT_EQ(verdict.error, error)
        << (verdict.error == 0 ? "success" : strerrorname_np(verdict.error))
        << ": " << sentence;
    EXPECT_EQ(ReadLine(Dir() / name / "error"), sentence);
  }
  [[nodiscard]] Verdict Make(const std::string& name) const {
    return Call([&] { return mkdir((Dir() / name).c_str(), 0700); });
  }
  [[nodiscard]] Verdict Move(const std::string& from,
                             const std::string& to) const {
    return Call(
        [&] { return rename((Dir() / from).c_str(), (Dir() / to).c_str()); });
  }
  // By a process of its own: who was refused a removal is refused others for a
  // while.
  [[nodiscard]] Verdict Unlink(const std::string& path) const {
    const pid_t pid = fork();
    if (pid == 0) _exit(unlink((Dir() / path).c_str()) < 0 ? errno : 0);
    int status = 0;
    waitpid(pid, &status, 0);
    return {WEXITSTATUS(status), ""};
  }
  [[nodiscard]] Verdict Rmdir(const std::string& path) const {
    return Call([&] { return rmdir((Dir() / path).c_str()); });
  }
  [[nodiscard]] Verdict Write(const std::string& path,
                              const std::string& text) const {
    return WriteText(Dir() / path, text);
  }
};

TEST_F(RefusalTest, Names) {
  auto flaw = [](const std::string& name, const std::string& why) {
    return fmt::format("Cannot make '{}': {}; choose another one", name, why);
  };
  Refused(Make(".box"), EINVAL,
          flaw(".box", "a name begins with a letter or a digit"));
  Refused(Make("-box"), EINVAL,
          flaw("-box", "a name begins with a letter or a digit"));
  Refused(Make("a box"), EINVAL,
          flaw("a box", "a name is made of letters, digits, '.', '_' and '-'"));
  Refused(Make("b\xc3\xbcx"), EINVAL,
          flaw("b\xc3\xbcx",
               "a name is made of letters, digits, '.', '_' and '-'"));
  Refused(Make("box.yaml"), EINVAL,
          flaw("box.yaml",
               "a name cannot end in .yaml, which stands for its "
               "config.yaml"));
  const std::string longest(58, 'x');
  Refused(Make(longest + "x"), ENAMETOOLONG,
          fmt::format("Cannot make '{}x': a name has 58 bytes at most, this "
                      "one 59; choose a shorter one",
                      longest));
  Mkdir(longest);
  EXPECT_EQ(Make(longest).error, EEXIST);
  Mkdir("Web.one");
  EXPECT_EQ(Make("Web.one").error, EEXIST);
  Refused(Make("web-ONE"), EEXIST,
          "Cannot create 'web-ONE': 'Web.one' exists, whose guest has the "
          "same host name, lima-web-one");
  EXPECT_EQ(Make(".host").error, EEXIST);
  EXPECT_EQ(Make("Web.one/inner").error, EPERM);
  EXPECT_EQ(Make(".host/inner").error, EPERM);
  EXPECT_EQ(Make(".host/images/inner").error, EPERM);
  EXPECT_EQ(Make("none/inner").error, ENOENT);
  RefusedIn("Web.one", Move("Web.one", "-x"), EINVAL,
            "Cannot rename to '-x': a name begins with a letter or a digit; "
            "choose another one");
  RefusedIn("Web.one", Move("Web.one", longest), EEXIST,
            fmt::format("Cannot rename 'Web.one' to '{}': it exists", longest));
  RefusedIn("Web.one", Move("Web.one", ".host/inner"), EPERM,
            "Cannot move 'Web.one' to 'inner': a sandbox lives at the root of "
            "the mount");
}

TEST_F(RefusalTest, ADomainOfVirshHasTheName) {
  auto define = [this](const std::string& name) {
    const stdfs::path xml = Dir().string() + ".xml";
    std::ofstream(xml) << "<domain type='qemu'><name>" << name
                       << "</name><memory>32768</memory><os><type>hvm</type>"
                          "</os></domain>";
    Virsh({"define", xml.string()});
  };
  auto taken = [this](const std::string& name, const std::string& why) {
    const std::string sentence =
        fmt::format("Cannot create '{}': {}; choose another", name, why);
    EXPECT_TRUE(Eventually([&] {
      if (Make(name).error == 0) rmdir((Dir() / name).c_str());
      return HostError() == sentence;
    })) << HostError();
    Refused(Make(name), EEXIST, sentence);
  };
  define("theirs");
  taken("theirs", "libvirt has a domain of that name");
  taken("Theirs",
        "libvirt has a domain 'theirs', which may have the same host name, "
        "lima-theirs");
  define("lima-box");
  taken("box",
        "libvirt has a domain 'lima-box', which may have the same host name, "
        "lima-box");
  Mkdir("free");
  RefusedIn("free", Move("free", "theirs"), EEXIST,
            "Cannot rename 'free' to 'theirs': libvirt has a domain of that "
            "name; choose another");
  Virsh({"undefine", "theirs"});
  Virsh({"undefine", "lima-box"});
  EXPECT_TRUE(Eventually([this] { return Make("box").error == 0; }));
  Virsh({"domrename", "box", "other"});
  ASSERT_TRUE(Eventually([this] { return stdfs::exists(Dir() / "other"); }));
  EXPECT_FALSE(stdfs::exists(Dir() / "box"));
}

TEST_F(RefusalTest, Verbs) {
  Mkdir("box");
  const std::string list =
      "start, stop, kill, restart, pause, resume, save, reset, destroy and "
      "wait STATE";
  RefusedIn("box", Write("box/status", "boot\n"), EINVAL,
            fmt::format("Cannot do 'boot': no such verb; there are {}", list));
  RefusedIn("box", Write("box/status", "START\n"), EINVAL,
            fmt::format("Cannot do 'START': no such verb; there are {}", list));
  RefusedIn("box", Write("box/status", "wait asleep\n"), EINVAL,
            "Cannot wait for 'asleep': no such state; there are provisioning, "
            "stopped, starting, running, stopping, paused, saved, crashed, "
            "destroying and unreachable");
  RefusedIn("box", WriteText(Dir() / "box/status", "wait paused", O_NONBLOCK),
            EAGAIN, "Cannot wait for 'paused' without blocking: it is stopped");
  RefusedIn("box", Write("box/status", "start\nstop\n"), EINVAL,
            "Cannot write 'status': these are several lines, and a line is a "
            "command; write one at a time");
  RefusedIn("box", Write("box/status", "start\x01\n"), EINVAL,
            "Cannot write 'status': there is a control character in it; write "
            "plain text");
  EXPECT_EQ(Write("box/status", std::string(5000, 'x')).error, E2BIG);
  for (const char* verb : {"pause", "save", "reset"}) {
    RefusedIn(
        "box", Write("box/status", verb), EBUSY,
        fmt::format("Cannot {} 'box': it is stopped; start it first", verb));
  }
  RefusedIn("box", Write("box/status", "resume"), EBUSY,
            "Cannot resume 'box': it is stopped; write start");
  EXPECT_EQ(Write("box/status", "stop"), Verdict{});  // holds
  EXPECT_EQ(Write("box/status", "kill"), Verdict{});
  Boot("box");
  ASSERT_EQ(Write("box/status", "save"), Verdict{});
  RefusedIn("box", Write("box/status", "stop"), EBUSY,
            "Cannot stop 'box': it is saved; start it first, or write kill to "
            "drop its memory");
  RefusedIn("box", Write("box/status", "destroy"), EBUSY,
            "Cannot destroy 'box': it is saved; write stop or kill first");
}

TEST_F(RefusalTest, ARunningSandbox) {
  Mkdir("box");
  Boot("box");
  RefusedIn("box", Rmdir("box"), EBUSY,
            "Cannot remove 'box': it is running; write stop to its status "
            "first");
  RefusedIn("box", Move("box", "crate"), EBUSY,
            "Cannot rename 'box' to 'crate': it is running; write stop to its "
            "status first");
  Refused(Unlink(".host/images/blank"), EBUSY,
          "Cannot remove image 'blank': a sandbox stands on it; rmdir that "
          "first (and look into .host/trash)");
}

TEST_F(RefusalTest, AProtectedSandbox) {
  Mkdir("box");
  ASSERT_EQ(chmod((Dir() / "box").c_str(), 0500), 0);
  RefusedIn("box", Rmdir("box"), EPERM,
            "Cannot remove 'box': it is protected; chmod u+w 'box' first");
}

TEST_F(RefusalTest, ASandboxInTheTrash) {
  Mkdir("box");
  ASSERT_EQ(rmdir((Dir() / "box").c_str()), 0);
  EXPECT_EQ(Write(".host/trash/box/status", "start\n").error, EACCES);
  EXPECT_EQ(Write(".host/trash/box/cpus", "2\n").error, EACCES);
  Mkdir("box");
  EXPECT_EQ(Call([this] {
              return rename((Host() / "trash/box").c_str(),
                            (Dir() / "box").c_str());
            }).error,
            EEXIST);
}

TEST_F(RefusalTest, ValuesOfSingleFiles) {
  Mkdir("box");
  auto refused = [this](const std::string& file, const std::string& value,
                        const std::string& begin) {
    EXPECT_EQ(Write("box/" + file, value + "\n").error, EINVAL)
        << file << " " << value;
    const std::string error = ReadLine(Dir() / "box/error");
    EXPECT_TRUE(error.starts_with(begin)) << error;
  };
  for (const char* value : {"0", "-1", "many", "1.5", "1000000"}) {
    refused("cpus", value,
            fmt::format("Cannot set cpus of 'box' to '{}': ", value));
  }
  for (const char* value : {"0", "1MiB", "lots", "-1GiB"}) {
    refused("memory", value,
            fmt::format("Cannot set memory of 'box' to '{}': ", value));
  }
  for (const char* value : {"0", "big", "1KiB"}) {
    refused("disk", value,
            fmt::format("Cannot set disk of 'box' to '{}': ", value));
  }
  for (const char* value : {"-1", "65536", "ssh", "99999999999999999999"}) {
    refused("ssh_port", value,
            fmt::format("Cannot set ssh_port of 'box' to '{}': ", value));
  }
  refused("autostart", "maybe",
          "Cannot set 'autostart': 'maybe' is neither yes nor no; write one "
          "of them");
  refused("cpus", " ", "Cannot set 'cpus': the line is empty; write a value");
  EXPECT_EQ(Write("box/authorized_keys", "ssh-ed25519 nonsense\n").error,
            EINVAL);
  EXPECT_EQ(Write("box/authorized_keys", "what is this\n").error, EINVAL);
  // Empty writes change nothing, and nothing of it all was taken.
  EXPECT_EQ(Write("box/cpus", ""), Verdict{});
  EXPECT_EQ(ReadText(Dir() / "box/cpus"), "1\n");
  EXPECT_FALSE(stdfs::exists(Dir() / "box/config.yaml.rejected"));
}

TEST_F(RefusalTest, TextsOfConfigYaml) {
  Mkdir("box");
  const std::string before = ReadText(Dir() / "box/config.yaml");
  auto refused = [&](const std::string& text, const std::string& place,
                     const std::string& word) {
    EXPECT_EQ(Write("box/config.yaml", text).error, EINVAL) << text;
    const std::string error = ReadLine(Dir() / "box/error");
    EXPECT_NE(error.find(place), std::string::npos) << text << error;
    EXPECT_NE(error.find(word), std::string::npos) << text << error;
    EXPECT_EQ(ReadText(Dir() / "box/config.yaml.rejected"), text);
    EXPECT_EQ(ReadText(Dir() / "box/config.yaml"), before);
    EXPECT_EQ(Write("box/status", "start\n").error, EINVAL);
    const std::string bar = ReadLine(Dir() / "box/error");
    EXPECT_TRUE(
        bar.starts_with("Cannot start 'box': config.yaml.rejected is "
                        "there ("))
        << bar;
  };
  refused("cpus: 2\ncpuz: 3\n", "line 2, column 1", "cpus");
  refused("cpus: two\n", "line 1, column 7", "two");
  refused("cpus: 2\ncpus: 3\n", "line 2, column 1", "cpus");
  refused("cpus: [\n", "line ", "column ");
  refused("ssh:\n  localPort: 70000\n", "line 2, column 14", "70000");
  refused("images: blank\n", "line 1, column 9", "images");
  refused("ssh:\n  localprt: 1\n", "line 2, column 3", "localPort");
  refused("memory: 4XiB\n", "line 1, column 9", "4XiB");
  refused("- a\n- b\n", "line 1", "");
  refused("cpus: 1\n\tmemory: 2\n", "line ", "");
  EXPECT_EQ(Unlink("box/config.yaml.rejected"), Verdict{});
  EXPECT_EQ(ReadText(Dir() / "box/error"), "");
  EXPECT_EQ(Write("box/config.yaml", "cpus: 2\n"), Verdict{});
  // All or nothing for a new sandbox too.
  std::string made = Dir() / "new.yaml";
  const Ended ended = RunProgram(
      {"sh", "-c", "printf 'cpuz: 2\\n' | tee \"$1\" > /dev/null", "sh", made});
  EXPECT_NE(ended.err.find("Invalid argument"), std::string::npos) << ended.err;
  EXPECT_FALSE(stdfs::exists(Dir() / "new"));
  EXPECT_NE(HostError().find("line 1, column 1"), std::string::npos)
      << HostError();
}

TEST_F(RefusalTest, FilesThatAreNotWritten) {
  Mkdir("box");
  for (const char* file : {"README", "pending", "reason", "ready", "progress",
                           "error", "events", "usage", "ssh_config",
                           "known_hosts", "ip", "console.log", "domain.xml"}) {
    EXPECT_EQ(Write(std::string("box/") + file, "x\n").error, EACCES) << file;
    EXPECT_EQ(Unlink(std::string("box/") + file).error, EPERM) << file;
  }
  for (const char* file : {"README", "list", "connection", "error", "events",
                           "capacity", "ssh_config"}) {
    EXPECT_EQ(Write(std::string(".host/") + file, "x\n").error, EACCES) << file;
  }
  EXPECT_EQ(Rmdir(".host").error, EPERM);
  EXPECT_EQ(Rmdir(".host/images").error, EPERM);
  EXPECT_EQ(Move("box/cpus", "box/memory").error, EPERM);
  auto creat = [this](const std::string& path) {
    return Call([&] {
      return open((Dir() / path).c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    });
  };
  RefusedIn("box", creat("box/statsu"), EPERM,
            "Cannot create 'statsu': there is no such file here; did you mean "
            "'status'?");
  Refused(creat("note"), EPERM,
          "Cannot create 'note': sandboxes are made here; mkdir 'note', or "
          "copy a config to 'note.yaml'");
  EXPECT_EQ(Call([this] {
              return symlink("cpus", (Dir() / "box/link").c_str());
            }).error,
            EPERM);
  EXPECT_EQ(
      Call([this] { return mkfifo((Dir() / "box/fifo").c_str(), 0600); }).error,
      EPERM);
}

TEST_F(RefusalTest, RemovingATreeRemovesNothing) {
  Mkdir("box");
  const Ended rm = RunProgram({"rm", "-rf", (Dir() / "box").string()});
  EXPECT_NE(rm.status, 0);
  EXPECT_TRUE(stdfs::exists(Dir() / "box/status"));
  EXPECT_EQ(Virsh({"list", "--all", "--name"}), "box");
}

TEST_F(RefusalTest, PortsThatAreTaken) {
  Mkdir("box");
  Mkdir("crate");
  const std::string port = ReadLine(Dir() / "box/ssh_port");
  RefusedIn(
      "crate", Write("crate/ssh_port", port + "\n"), EADDRINUSE,
      fmt::format("Cannot set ssh_port of 'crate' to '{0}': ssh port {0} is "
                  "taken by sandbox 'box'; choose another",
                  port));

  // Ours from now on, as it might be any other program's.
  const UniqueFd taken(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(std::stoi(port)));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(bind(taken.Get(), reinterpret_cast<const sockaddr*>(&address),
                 sizeof address),
            0);
  ASSERT_EQ(listen(taken.Get(), 1), 0);
  const std::string self =
      fmt::format("process 'qemu_tests' (pid {})", getpid());
  RefusedIn("box", Write("box/status", "start\n"), EADDRINUSE,
            fmt::format("Cannot start 'box': its ssh port {} is taken by {}; "
                        "end that, or write another to ssh_port",
                        port, self));
  EXPECT_EQ(Status("box"), "stopped");
  ASSERT_EQ(Write("box/ssh_port", "2345\n"), Verdict{});
  RefusedIn(
      "box", Write("box/ssh_port", port + "\n"), EADDRINUSE,
      fmt::format("Cannot set ssh_port of 'box' to '{0}': ssh port {0} is "
                  "taken by {1}; choose another",
                  port, self));
  Boot("box");
}

}  // namespace
}  // namespace sbxfs
