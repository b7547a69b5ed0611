#include "tests/support/guest_mount.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <ostream>
#include <set>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "backend/util/text.h"
#include "tests/support/secrets.h"
#include "tests/support/wrapper.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr char kUri[] = "qemu:///system";

stdfs::path Root() { return std::getenv("SBXFS_INSIDE"); }

int StatusOf(int wait_status) {
  return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status)
                                : -WTERMSIG(wait_status);
}

bool IsMounted(const stdfs::path& dir) {
  return ReadText("/proc/self/mountinfo").find(" " + dir.string() + " ") !=
         std::string::npos;
}

std::string TextOf(int fd) {
  std::string text;
  std::array<char, 4096> buffer;
  ssize_t got = 0;
  while ((got = read(fd, buffer.data(), buffer.size())) > 0) {
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  return text;
}

void Ignore(int) {}

}  // namespace

Ended RunProgram(const std::vector<std::string>& command,
                 std::chrono::seconds limit) {
  int ends[2][2];
  for (auto& pair : ends) {
    if (pipe2(pair, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  }
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
    dup2(ends[0][1], STDOUT_FILENO);
    dup2(ends[1][1], STDERR_FILENO);
    Execute(command);
  }
  Ended ended;
  pollfd open_ends[2];
  for (int i = 0; i < 2; ++i) {
    close(ends[i][1]);
    open_ends[i] = {ends[i][0], POLLIN, 0};
  }
  const auto until = Clock::now() + limit;
  while (open_ends[0].fd >= 0 || open_ends[1].fd >= 0) {
    if (Clock::now() > until) break;
    if (poll(open_ends, 2, 200) < 0) break;
    for (int i = 0; i < 2; ++i) {
      if (open_ends[i].fd < 0 || open_ends[i].revents == 0) continue;
      char buffer[4096];
      const ssize_t got = read(open_ends[i].fd, buffer, sizeof buffer);
      if (got > 0) {
        (i == 0 ? ended.out : ended.err)
            .append(buffer, static_cast<std::size_t>(got));
      } else {
        open_ends[i].fd = -1;
      }
    }
  }
  if (Clock::now() > until) {
    kill(pid, SIGKILL);
    ended.err += fmt::format("({} was killed after {} s)\n", command.front(),
                             limit.count());
  }
  for (auto& pair : ends) close(pair[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  ended.status = StatusOf(status);
  return ended;
}

std::string Virsh(std::vector<std::string> words) {
  words.insert(words.begin(), {"virsh", "-q", "-c", kUri});
  Ended ended = RunProgram(words);
  EXPECT_EQ(ended.status, 0) << words[4] << ": " << ended.err;
  while (ended.out.ends_with('\n')) ended.out.pop_back();
  return ended.out;
}

bool Eventually(const std::function<bool()>& holds,
                std::chrono::milliseconds limit) {
  const auto until = Clock::now() + (IsWrapped() ? 6 * limit : limit);
  while (!holds()) {
    if (Clock::now() > until) return false;
    std::this_thread::sleep_for(10ms);
  }
  return true;
}

std::string ReadText(const stdfs::path& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  return fd.Valid()
             ? TextOf(fd.Get())
             : fmt::format("({}: {})", path.string(), std::strerror(errno));
}

std::string ReadLine(const stdfs::path& path) {
  std::string text = ReadText(path);
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

void PrintTo(const Verdict& verdict, std::ostream* out) {
  *out << (verdict.error == 0 ? "success" : strerrorname_np(verdict.error))
       << " \"" << verdict.sentence << '"';
}

Verdict WriteText(const stdfs::path& path, const std::string& text, int flags) {
  flags |= O_CLOEXEC | O_TRUNC;  // as a shell's > does
  UniqueFd fd(open(path.c_str(), O_RDWR | flags, 0600));
  if (!fd.Valid() && errno == EACCES) {
    fd.Reset(open(path.c_str(), O_WRONLY | flags, 0600));
  }
  if (!fd.Valid()) return {errno, ""};
  Verdict verdict;
  if (write(fd.Get(), text.data(), text.size()) < 0) verdict.error = errno;
  // A document's verdict comes from close.
  const UniqueFd twin(dup(fd.Get()));
  if (close(fd.Release()) < 0 && verdict.error == 0) verdict.error = errno;
  if (verdict.error != 0) {
    verdict.sentence = std::string(Trim(TextOf(twin.Get())));
  }
  return verdict;
}

Verdict Call(const std::function<int()>& call) {
  return call() < 0 ? Verdict{errno, ""} : Verdict{};
}

Writer::Writer(const stdfs::path& path, const std::string& text) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  pid_ = fork();
  if (pid_ == 0) {
    // With a handler, as a shell has it: without one these reach nobody.
    struct sigaction action {};
    action.sa_handler = Ignore;
    sigaction(SIGWINCH, &action, nullptr);
    sigaction(SIGCHLD, &action, nullptr);
    const Verdict verdict = WriteText(path, text);
    const std::string line =
        fmt::format("{} {}", verdict.error, verdict.sentence);
    _exit(write(ends[1], line.data(), line.size()) < 0 ? 1 : 0);
  }
  close(ends[1]);
  answer_.Reset(ends[0]);
}

Writer::Writer(Writer&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), answer_(std::move(other.answer_)) {}

Writer::~Writer() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void Writer::Signal(int signal) const { kill(pid_, signal); }

std::optional<Verdict> Writer::Ended(std::chrono::milliseconds limit) {
  pollfd ready{answer_.Get(), POLLIN, 0};
  if (poll(&ready, 1, static_cast<int>(limit.count())) != 1) {
    return std::nullopt;
  }
  const std::string line = TextOf(answer_.Get());
  if (line.empty()) return Verdict{EINTR, "(ended by a signal)"};
  const auto blank = line.find(' ');
  return Verdict{std::stoi(line.substr(0, blank)), line.substr(blank + 1)};
}

bool Writer::EndedBySignal(int signal) {
  int status = 0;
  if (!Eventually([&] { return waitpid(pid_, &status, WNOHANG) == pid_; })) {
    return false;
  }
  pid_ = -1;
  return WIFSIGNALED(status) && WTERMSIG(status) == signal;
}

bool Writer::Waits() const {
  return ReadText(fmt::format("/proc/{}/syscall", pid_)).starts_with("1 ");
}

GuestMount::GuestMount(const std::string& options, std::string uri)
    : options_(options), uri_(std::move(uri)) {
  static int count = 0;
  const stdfs::path root = Root();
  setenv("HOME", root.c_str(), 1);
  setenv("XDG_DATA_HOME", (root / "data").c_str(), 1);
  dir_ = root / fmt::format("mount-{}", ++count);
  log_ = root / fmt::format("log-{}", count);
  stdfs::create_directory(dir_);
  Start();
}

GuestMount::~GuestMount() {
  if (pid_ > 0) {
    umount2(dir_.c_str(), MNT_DETACH);
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
}

void GuestMount::Start() {
  pid_ = fork();
  if (pid_ == 0) {
    const int log = open(log_.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    ExecuteWrapped({std::string(SBXFS_BIN_DIR) + "/sbxfs", "-f", "-o",
                    "loglevel=debug," + options_, uri_, dir_.string()});
  }
  const bool mounted = Eventually([this] {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) pid_ = -1;
    return pid_ < 0 || (IsMounted(dir_) && stdfs::exists(dir_ / ".host"));
  });
  if (!mounted || pid_ < 0) {
    throw std::runtime_error("sbxfs did not mount: " + ReadText(log_));
  }
}

void GuestMount::Crash() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
  const struct Ended ended = RunProgram({"fusermount3", "-uz", dir_.string()});
  EXPECT_EQ(ended.status, 0) << ended.err;
}

pid_t ChildOf(pid_t parent) {
  const std::string children =
      ReadText(fmt::format("/proc/{0}/task/{0}/children", parent));
  const auto pid = ParseNumber(children.substr(0, children.find(' ')));
  return pid ? static_cast<pid_t>(*pid) : -1;
}

pid_t GuestMount::Server() const { return ChildOf(pid_); }

void GuestMount::KillServer() {
  pid_t server = -1;
  ASSERT_TRUE(Eventually([&] { return (server = Server()) > 0; }));
  EXPECT_EQ(kill(server, SIGKILL), 0);
}

int GuestMount::EndOfItself() {
  int status = -1;
  EXPECT_TRUE(
      Eventually([&] { return waitpid(pid_, &status, WNOHANG) == pid_; }));
  pid_ = -1;
  EXPECT_FALSE(IsMounted(dir_));
  return StatusOf(status);
}

void GuestMount::Ended() {
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
  EXPECT_FALSE(IsMounted(dir_));
}

void GuestMount::Stop() {
  if (pid_ < 0) return;
  struct Ended ended;
  (void)Eventually([&] {
    ended = RunProgram({"fusermount3", "-u", dir_.string()});
    return ended.status == 0;
  });
  EXPECT_EQ(ended.status, 0) << ended.err;
  if (ended.status != 0) umount2(dir_.c_str(), MNT_DETACH);
  int status = 0;
  if (Eventually([&] { return waitpid(pid_, &status, WNOHANG) == pid_; })) {
    EXPECT_EQ(StatusOf(status), 0) << ReadText(log_);
  } else {
    ADD_FAILURE() << "the daemon did not end after fusermount3 -u";
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  pid_ = -1;
  ReadLog();
}

void GuestMount::ReadLog() {
  const std::string text = ReadText(log_);
  EXPECT_EQ(text.find(Canary("")), std::string::npos) << "a secret is logged";
  std::istringstream log(text);
  std::string line;
  std::string bad;
  while (std::getline(log, line)) {
    if (line.starts_with("sbxfs: error") || line.starts_with("sbxfs: crit") ||
        line.starts_with("sbxfs: warn")) {
      bad += line + '\n';
    }
  }
  if (!errors_expected_) {
    EXPECT_EQ(bad, "");
  }
}

pid_t LibvirtdPid() {
  const std::string text = ReadText("/run/libvirtd.pid");
  const auto pid = ParseNumber(Trim(text));
  if (!pid) throw std::runtime_error("no pid of libvirtd: " + text);
  return static_cast<pid_t>(*pid);
}

void KillLibvirtd() {
  const pid_t pid = LibvirtdPid();
  ASSERT_EQ(kill(pid, SIGKILL), 0);
  const std::string process = fmt::format("/proc/{}/status", pid);
  ASSERT_TRUE(Eventually([&] {
    return !stdfs::exists(process) ||
           ReadText(process).find("State:\tZ") != std::string::npos;
  }));
}

static bool LibvirtdAnswers() {
  return RunProgram({"virsh", "-c", kUri, "version"}).status == 0;
}

void StartLibvirtd() {
  const Ended ended = RunProgram({"libvirtd", "-d"});
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_TRUE(Eventually(LibvirtdAnswers));
}

void NeedLibvirtd() {
  // It may be about to end.
  std::this_thread::sleep_for(500ms);
  if (LibvirtdAnswers()) return;
  std::printf("libvirtd ended by itself\n");
  StartLibvirtd();
}

void Identities::Add(const stdfs::path& box) {
  const std::string xml = ReadText(box / "domain.xml");
  macs.insert(xml.substr(xml.find(",mac=52:54:00:"), 22));
  ports.insert(ReadLine(box / "ssh_port"));
  const std::string hosts = ReadLine(box / "known_hosts");
  keys.insert(hosts.substr(hosts.find("ssh-ed25519")));
}

World World::Now() {
  World world;
  world.domains = Virsh({"list", "--all", "--name"});
  const std::string pools = Virsh({"pool-list", "--name"});
  if (pools.find("sbxfs") != std::string::npos) {
    // Refused while a volume is made or removed.
    EXPECT_TRUE(Eventually([] {
      return RunProgram({"virsh", "-q", "-c", kUri, "pool-refresh", "sbxfs"})
                 .status == 0;
    }));
    std::istringstream lines(Virsh({"vol-list", "sbxfs"}));
    std::string line;
    while (std::getline(lines, line)) {
      std::istringstream(line) >> line;
      // Of a mount that ended in the middle of its housekeeping: it runs out.
      if (line != "lease.background") world.volumes += line + '\n';
    }
  }
  std::set<std::string> ports;
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::istringstream lines(ReadText(table));
    std::string line;
    while (std::getline(lines, line)) {
      std::istringstream words(line);
      std::string slot, local, remote, state;
      words >> slot >> local >> remote >> state;
      if (state == "0A") ports.insert(local);
    }
  }
  for (const auto& port : ports) world.ports += port + '\n';
  return world;
}

bool Listens(const std::string& port) {
  return World::Now().ports.find(fmt::format("{:04X}", std::stoi(port))) !=
         std::string::npos;
}

void PrintTo(const World& world, std::ostream* out) {
  *out << "domains:\n"
       << world.domains << "\nvolumes:\n"
       << world.volumes << "ports:\n"
       << world.ports;
}

void Clear(const stdfs::path& dir) {
  std::vector<stdfs::path> sandboxes;
  for (const auto& entry : stdfs::directory_iterator(dir)) {
    if (entry.path().filename() != ".host") sandboxes.push_back(entry.path());
  }
  for (const auto& sandbox : sandboxes) {
    EXPECT_EQ(WriteText(sandbox / "status", "kill\n"), Verdict{});
    chmod(sandbox.c_str(), 0700);
    EXPECT_EQ(Call([&] { return rmdir(sandbox.c_str()); }), Verdict{})
        << ReadText(sandbox / "error");
  }
  std::vector<stdfs::path> trash;
  for (const auto& entry : stdfs::directory_iterator(dir / ".host/trash")) {
    trash.push_back(entry.path());
  }
  for (const auto& sandbox : trash) {
    EXPECT_EQ(Call([&] { return rmdir(sandbox.c_str()); }), Verdict{})
        << sandbox;
  }
}

void ForgetOverride() {
  std::istringstream volumes(World::Now().volumes);
  for (std::string name; std::getline(volumes, name);) {
    if (name.starts_with("doc.override.yaml.")) {
      Virsh({"vol-delete", name, "sbxfs"});
    }
  }
}

std::string BlankDisk() {
  std::string disk(1 << 20, '\0');
  // cli; hlt; jmp to the hlt: it takes no time of ours.
  disk.replace(0, 4, "\xfa\xf4\xeb\xfd");
  disk[510] = '\x55';
  disk[511] = '\xaa';
  return disk;
}

bool LongRun() {
  const char* set = std::getenv("SBXFS_LONG");
  return set != nullptr && *set != '\0';
}

std::string NoGuestsBecause() {
  if (std::getenv("SBXFS_INSIDE") == nullptr) {
    return "needs a libvirtd of its own: run it in tests/support/inside";
  }
  return "";
}

void MakeBlank(const stdfs::path& host) {
  const stdfs::path image = host / "images/blank";
  if (!stdfs::exists(image)) std::ofstream(image) << BlankDisk();
  ASSERT_TRUE(stdfs::exists(image)) << ReadText(host / "error");
  ASSERT_EQ(WriteText(host / "defaults.yaml",
                      "images: [{location: blank}]\n"
                      "cpus: 1\nmemory: 32MiB\ndisk: 64MiB\n"
                      "ssh: {loadDotSSHPubKeys: false}\n"),
            Verdict{});
}

void BlankGuests::SetUp() {
  if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
  mount_ = std::make_unique<GuestMount>(Options());
  MakeBlank(Host());
  before_ = World::Now();
}

void BlankGuests::TearDown() {
  if (mount_ == nullptr) return;
  std::error_code dead;
  if (!stdfs::exists(Host(), dead)) {
    ADD_FAILURE() << "the daemon is gone: " << dead.message();
    mount_->Crash();
    mount_->Start();
  }
  Clear(Dir());
  mount_->Stop();
  EXPECT_TRUE(Eventually([this] { return World::Now() == before_; }, 5s));
  EXPECT_EQ(World::Now(), before_);
}

void BlankGuests::Mkdir(const std::string& name) {
  ASSERT_EQ(Call([&] { return mkdir((Dir() / name).c_str(), 0700); }),
            Verdict{})
      << ReadText(Host() / "error");
}

void BlankGuests::Boot(const std::string& name) {
  ASSERT_EQ(WriteText(Dir() / name / "status", "start\n", O_NONBLOCK),
            Verdict{});
  ASSERT_TRUE(Becomes(name, "running")) << ReadText(Dir() / name / "error");
}

void BlankGuests::ExpectConnected() const {
  EXPECT_TRUE(Eventually(
      [this] {
        return ReadText(Host() / "connection").starts_with("connected");
      },
      60s))
      << ReadText(Host() / "connection");
}

bool BlankGuests::Becomes(const std::string& name, const std::string& state,
                          std::chrono::milliseconds limit) const {
  return Eventually([&] { return Status(name) == state; }, limit);
}

}  // namespace sbxfs
