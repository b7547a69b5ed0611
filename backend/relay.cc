#include "backend/relay.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <fstream>
#include <iterator>
#include <thread>

#include "backend/connect_error.h"
#include "backend/guest/boot.h"
#include "backend/run_dir.h"
#include "backend/util/capture.h"
#include "backend/util/log.h"
#include "backend/util/spawn.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

constexpr auto kMasterLimit = 15s;
constexpr auto kTendPause = 3s;

std::string ReadFile(const stdfs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

Relay::~Relay() { EndMaster(); }

void Relay::Look(const std::string& uuid) {
  if (!core_.relayed) return;
  {
    MutexLock lock(mutex_);
    due_.insert(uuid);
    if (working_) return;
    working_ = true;
  }
  core_.workers.Run([this] { Work(); });
}

void Relay::Withhold(const std::string& uuid) {
  {
    MutexLock lock(mutex_);
    withheld_.insert(uuid);
  }
  Look(uuid);
  const auto until = std::chrono::steady_clock::now() + kMasterLimit;
  while (std::chrono::steady_clock::now() < until) {
    {
      MutexLock lock(mutex_);
      if (!due_.contains(uuid) && settling_ != uuid) return;
    }
    std::this_thread::sleep_for(20ms);
  }
}

void Relay::Release(const std::string& uuid) {
  {
    MutexLock lock(mutex_);
    withheld_.erase(uuid);
  }
  Look(uuid);
}

void Relay::Work() {
  for (;;) {
    std::string uuid;
    {
      MutexLock lock(mutex_);
      settling_.clear();
      if (due_.empty()) {
        working_ = false;
        break;
      }
      uuid = settling_ = *due_.begin();
      due_.erase(due_.begin());
    }
    try {
      Settle(uuid);
      told_.erase(uuid);
    } catch (const Error& error) {
      if (std::exchange(told_[uuid], error.Sentence()) != error.Sentence()) {
        core_.catalog.ReportEnd(uuid, &error);
      }
    }
  }
  Tend();
}

// The master ends when the hypervisor's sshd does, or its port moves, which
// libvirt's own connection may live through.
void Relay::Tend() {
  {
    MutexLock lock(mutex_);
    if (tending_) return;
    tending_ = true;
  }
  core_.timer.After(kTendPause, [this] {
    std::vector<std::string> uuids;
    for (const auto& sandbox : core_.catalog.List(false)) {
      uuids.push_back(sandbox->uuid);
    }
    {
      MutexLock lock(mutex_);
      tending_ = false;
    }
    for (const auto& uuid : uuids) Look(uuid);
  });
}

Relay::Ports Relay::Wanted(const std::string& uuid) const {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  const auto facts = core_.Facts(uuid);
  Ports ports;
  {
    MutexLock lock(mutex_);
    if (withheld_.contains(uuid)) return ports;
  }
  if (sandbox == nullptr || !facts || !sandbox->ours ||
      core_.catalog.IsOff(uuid) || sandbox->state == State::kSaved) {
    return ports;
  }
  for (const Forward& forward : facts->forwards) {
    // The others are for who is over there.
    if (!forward.udp && forward.host_ip == "127.0.0.1") ports.insert(forward);
  }
  return ports;
}

void Relay::Settle(const std::string& uuid) {
  const Ports wanted = Wanted(uuid);
  if (!MasterLives()) open_.clear();
  if (open_[uuid] == wanted) return;
  NeedMaster();
  Ports& had = open_[uuid];
  Ports gone;
  std::set_difference(had.begin(), had.end(), wanted.begin(), wanted.end(),
                      std::inserter(gone, gone.end()));
  for (const Forward& forward : gone) {
    (void)Tell("cancel", forward);
    had.erase(forward);
  }
  for (const Forward& forward : wanted) {
    if (had.contains(forward)) continue;
    const std::string refused = Tell("forward", forward);
    if (refused.empty()) {
      had.insert(forward);
      continue;
    }
    throw Error(EADDRINUSE,
                fmt::format("Cannot open port {} on this machine for '{}': "
                            "something listens there already (ssh says '{}'); "
                            "choose another, or end that",
                            HostSide(forward), core_.NameOf(uuid), refused));
  }
}

std::string Relay::Tell(const std::string& command,
                        const Forward& forward) const {
  std::vector<std::string> words = ssh_;
  const std::string way =
      fmt::format("{}:127.0.0.1:{}", HostSide(forward), forward.host_port);
  words.insert(words.end() - 1, {"-S", socket_, "-O", command, "-L", way});
  const Captured said = Capture(std::move(words));
  return said.status == 0 ? "" : LastWords(said.err);
}

bool Relay::MasterLives() {
  if (master_ > 0 && waitpid(master_, nullptr, WNOHANG) != 0) master_ = -1;
  return master_ > 0;
}

void Relay::EndMaster() {
  master_stdin_.Reset();
  if (MasterLives()) {
    kill(master_, SIGTERM);
    waitpid(master_, nullptr, 0);
    master_ = -1;
  }
  std::error_code ignored;
  if (!socket_.empty()) stdfs::remove_all(socket_.parent_path(), ignored);
}

// The master runs `cat` over there, which ends when we do, however that is.
void Relay::NeedMaster() {
  const Route route = core_.Way();
  if (MasterLives() && ssh_ == route.ssh) return;
  if (route.ssh.empty()) {
    throw Error(EHOSTDOWN,
                "Cannot open the guests' ports on this machine: the "
                "hypervisor is reached in another way now");
  }
  EndMaster();
  // It has nothing of the one before.
  open_.clear();
  for (const auto& sandbox : core_.catalog.List(false)) {
    MutexLock lock(mutex_);
    due_.insert(sandbox->uuid);
  }
  ssh_ = route.ssh;
  const stdfs::path dir =
      MakeRunDirectory(fmt::format("hypervisor-{}", getpid()));
  socket_ = dir / "ssh";
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw Error(errno, "Cannot make a pipe");
  const UniqueFd input(ends[0]);
  master_stdin_ = UniqueFd(ends[1]);
  std::vector<std::string> words = ssh_;
  words.insert(words.end() - 1,
               {"-M", "-S", socket_, "-o", "ControlPersist=no", "-T"});
  words.emplace_back("exec cat");
  const stdfs::path log = dir / "log";
  const UniqueFd said(
      open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  master_ = Spawn(std::move(words), input.Get(), -1, said.Get());
  const auto deadline = std::chrono::steady_clock::now() + kMasterLimit;
  while (!stdfs::exists(socket_)) {
    if (!MasterLives() || std::chrono::steady_clock::now() > deadline) {
      const std::string words_of_ssh = ReadFile(log);
      EndMaster();
      throw Error(EHOSTDOWN,
                  fmt::format("Cannot open the guests' ports on this machine: "
                              "{}",
                              ConnectFailure(LastWords(words_of_ssh),
                                             route.given, geteuid() == 0)));
    }
    std::this_thread::sleep_for(20ms);
  }
  spdlog::info("The guests' ports are opened by ssh to '{}'", ssh_.back());
}

}  // namespace sbxfs
