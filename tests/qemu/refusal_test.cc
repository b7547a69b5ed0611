// Refusals that need more than a call: what was before, or is after.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/qemu/refusals.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

TEST_F(RefusalTest, NamesThatTheKernelFinds) {
  const std::string longest(58, 'x');
  Mkdir(longest);
  EXPECT_EQ(Make(longest).error, EEXIST);
  EXPECT_EQ(Make(longest + ".yaml").error, EEXIST);
  EXPECT_EQ(Make(".host").error, EEXIST);
  EXPECT_EQ(Make("none/inner").error, ENOENT);
  EXPECT_EQ(Rmdir("none").error, ENOENT);
  EXPECT_EQ(Unlink(longest).error, EISDIR);
  EXPECT_EQ(Rmdir(longest + "/cpus").error, ENOTDIR);
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

TEST_F(RefusalTest, AHypervisorWithoutQemuImg) {
  mount_->ExpectLoggedErrors();
  // libvirt looks for one that can be executed, each time.
  ASSERT_EQ(mount("/dev/null", "/usr/bin/qemu-img", nullptr, MS_BIND, nullptr),
            0);
  const Verdict verdict = Make("box");
  EXPECT_EQ(umount("/usr/bin/qemu-img"), 0);
  Refused(verdict, EIO,
          "Cannot create 'box': libvirt makes disks with qemu-img, which the "
          "hypervisor lacks; install it there (Debian's qemu-utils)");
}

TEST_F(RefusalTest, VerbsWhoseStateHolds) {
  Mkdir("box");
  EXPECT_EQ(Write("box/status", "stop"), Verdict{});
  EXPECT_EQ(Write("box/status", "kill"), Verdict{});
  RefusedIn("box", Write("box/status", std::string(5000, 'x')), E2BIG,
            "Cannot write 'status': a line has less than 4096 bytes");
  Virsh({"start", "box"});
  ASSERT_TRUE(Becomes("box", "running"));
  EXPECT_EQ(Write("box/status", "resume"), Verdict{});
  EXPECT_EQ(Write("box/status", "pause"), Verdict{});
  EXPECT_EQ(Write("box/status", "pause"), Verdict{});
  RefusedIn("box", Rmdir("box"), EBUSY,
            "Cannot remove 'box': it is paused; write stop to its status "
            "first");
}

TEST_F(RefusalTest, ASandboxInTheTrash) {
  Mkdir("box");
  ASSERT_EQ(rmdir((Dir() / "box").c_str()), 0);
  RefusedIn(".host/trash/box", Write(".host/trash/box/cpus", "2\n"), EACCES,
            "Cannot write 'cpus': sandbox 'box' is in the trash; mv it out "
            "first");
  Mkdir("box");
  EXPECT_EQ(Call([this] {
              return rename((Host() / "trash/box").c_str(),
                            (Dir() / "box").c_str());
            }).error,
            EEXIST);
}

TEST_F(RefusalTest, ValuesOfSingleFiles) {
  Mkdir("box");
  auto refused = [this](const std::string& file, const std::string& key,
                        const std::vector<std::string>& values,
                        const std::string& allowed) {
    for (const std::string& value : values) {
      RefusedIn("box", Write("box/" + file, value + "\n"), EINVAL,
                fmt::format("Cannot set {} of 'box' to '{}': {} is '{}'; it "
                            "must be {}",
                            file, value, key, value, allowed));
    }
  };
  refused("cpus", "cpus", {"0", "-1", "many", "1.5", "1000000"},
          "a whole number from 1 to 255");
  refused("memory", "memory", {"0", "1MiB", "lots", "-1GiB"},
          "a size from 16MiB to 16TiB, as in '4GiB'");
  refused("disk", "disk", {"0", "big", "1KiB"},
          "a size from 1MiB to 64TiB, as in '4GiB'");
  refused("ssh_port", "ssh.localPort",
          {"-1", "65536", "ssh", "99999999999999999999"},
          "a port from 1 to 65535, or 0 for one that is free");
  RefusedIn("box", Write("box/authorized_keys", "what is this\n"), EINVAL,
            "Cannot accept 'authorized_keys': line 1: 'what' is neither a key "
            "type nor an option");
  // Empty writes change nothing, and nothing of it all was taken.
  EXPECT_EQ(Write("box/cpus", ""), Verdict{});
  EXPECT_EQ(ReadText(Dir() / "box/cpus"), "1\n");
  EXPECT_FALSE(stdfs::exists(Dir() / "box/config.yaml.rejected"));
}

TEST_F(RefusalTest, ARefusedConfigYamlIsKeptApartAndBarsTheStart) {
  Mkdir("box");
  const std::string before = ReadText(Dir() / "box/config.yaml");
  const std::string bad = "cpus: 2\nssh:\n  localprt: 1\n";
  const std::string sentence =
      "Cannot accept 'config.yaml': line 3, column 3: unknown key "
      "'ssh.localprt'; did you mean 'ssh.localPort'? Known keys of ssh: "
      "address, ca, forwardAgent, forwardX11, forwardX11Trusted, "
      "loadDotSSHPubKeys, localPort, overVsock";
  RefusedIn("box", Write("box/config.yaml", bad), EINVAL, sentence);
  EXPECT_EQ(ReadText(Dir() / "box/config.yaml.rejected"), bad);
  EXPECT_EQ(ReadText(Dir() / "box/config.yaml"), before);
  for (const std::string verb : {"start", "restart"}) {
    RefusedIn("box", Write("box/status", verb + "\n"), EINVAL,
              fmt::format("Cannot {} 'box': config.yaml.rejected is there "
                          "({}); mend config.yaml, or rm config.yaml.rejected",
                          verb, sentence));
  }
  EXPECT_EQ(Unlink("box/config.yaml.rejected"), Verdict{});
  EXPECT_EQ(ReadText(Dir() / "box/error"), "");
  EXPECT_EQ(Write("box/config.yaml", "cpus: 2\n"), Verdict{});
  // All or nothing for a new sandbox too.
  EXPECT_EQ(WriteText(Dir() / "new.yaml", "cpuz: 2\n", O_CREAT).error, EINVAL);
  EXPECT_FALSE(stdfs::exists(Dir() / "new"));
}

TEST_F(RefusalTest, FilesThatAreNotWritten) {
  Mkdir("box");
  auto sentence = [](const char* file) {
    return fmt::format(
        "Cannot write '{}': it is read-only; .host/README names "
        "the files that take writes",
        file);
  };
  for (const char* file :
       {"README", "pending", "reason", "ready", "progress", "error", "events",
        "usage", "ssh_config", "known_hosts", "ip", "console.log", "domain.xml",
        "effective.yaml"}) {
    RefusedIn("box", Write(std::string("box/") + file, "x\n"), EACCES,
              sentence(file));
    RefusedIn(
        "box", Unlink(std::string("box/") + file), EPERM,
        fmt::format("Cannot remove '{}': it belongs to the tree; rmdir of "
                    "a sandbox takes the whole of it",
                    file));
  }
  for (const char* file : {"README", "list", "connection", "error", "events",
                           "capacity", "ssh_config", "audit"}) {
    Refused(Write(std::string(".host/") + file, "x\n"), EACCES, sentence(file));
  }
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
