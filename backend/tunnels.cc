#include "backend/tunnels.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <thread>

#include "backend/egress/proxy.h"
#include "backend/guest_shell.h"
#include "backend/libvirt_error.h"
#include "backend/mount/server.h"
#include "backend/mount/sshfs.h"
#include "backend/run_dir.h"
#include "backend/tunnel_process.h"
#include "backend/util/slip.h"
#include "backend/util/socket.h"
#include "backend/util/text.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

constexpr char kTunnelsUri[] = "https://sbxfs.org/xmlns/tunnels/1";
constexpr char kTunnelsPrefix[] = "sbxfs-tunnels";
constexpr char kTunnelPrefix[] = "tunnel.";
constexpr auto kTunnelPatience = 30s;  // for a socket to be there

std::string SlipName(const Tunnel& tunnel) {
  return fmt::format(
      "{}{:08x}", kTunnelPrefix,
      Hash32(fmt::format("{}\n{}\n{}\n{}", tunnel.reverse, tunnel.host,
                         tunnel.guest, fmt::join(tunnel.egress, "\n"))));
}

std::string What(const Sandbox& sandbox, const Tunnel& tunnel) {
  return fmt::format("Cannot forward '{}' of '{}' to '{}'",
                     tunnel.reverse ? tunnel.host : tunnel.guest, sandbox.name,
                     tunnel.reverse ? tunnel.guest : tunnel.host);
}

// Whether somebody listens on a socket's path.
bool Listens(const std::string& path) {
  const UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_un address = UnixAddress(path);
  return connect(fd.Get(), reinterpret_cast<const sockaddr*>(&address),
                 sizeof address) == 0;
}

// Makes room for a socket of this machine: one that nobody listens on is in
// the way, anything else is somebody's.
void MakeRoom(const std::string& path, std::string_view what) {
  if (path.size() >= sizeof(sockaddr_un::sun_path)) {
    throw Error(ENAMETOOLONG,
                fmt::format("{}: a socket's path has at most {} bytes; choose "
                            "a shorter hostSocket",
                            what, sizeof(sockaddr_un::sun_path) - 1));
  }
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0) return;
  if (!S_ISSOCK(status.st_mode)) {
    throw Error(EEXIST,
                fmt::format("{}: '{}' exists and is no socket; move it away, "
                            "or choose another hostSocket",
                            what, path));
  }
  if (Listens(path)) {
    throw Error(EADDRINUSE,
                fmt::format("{}: a process listens on '{}' already; choose "
                            "another hostSocket",
                            what, path));
  }
  (void)unlink(path.c_str());
}

void Forget(const std::string& uuid) {
  const stdfs::path dir = RunDirectory(uuid);
  StopServersIn(dir, kTunnelPrefix);
  std::error_code error;
  stdfs::remove_all(dir / "sock", error);
  stdfs::remove(dir, error);  // empty or not at all
}

}  // namespace

std::string TunnelsDigest(const std::vector<Tunnel>& tunnels) {
  std::string all;
  for (const Tunnel& tunnel : tunnels) all += SlipName(tunnel) + '\n';
  return all.empty() ? "" : fmt::format("{:08x}", Hash32(all));
}

std::string NotedTunnels(std::string_view domain_xml) {
  return XmlText(domain_xml,
                 "/domain/metadata/*[local-name()='tunnels']/@digest");
}

std::map<std::string, std::string> SocketsOf(
    const std::vector<Tunnel>& tunnels) {
  std::map<std::string, std::string> sockets;
  for (const Tunnel& tunnel : tunnels) {
    if (tunnel.reverse || !IsSocket(tunnel.host)) continue;
    sockets.emplace(stdfs::path(tunnel.host).filename(), tunnel.host);
  }
  return sockets;
}

void Tunnels::Check(const Caller& caller, const Sandbox& sandbox,
                    const Spec& before, const Spec& wanted,
                    std::string_view what) const {
  const auto old = TunnelsOf(core_.Expanded(before, sandbox));
  for (const Tunnel& tunnel : TunnelsOf(core_.Expanded(wanted, sandbox))) {
    if (std::find(old.begin(), old.end(), tunnel) != old.end()) continue;
    if (!core_.ReachesGuests()) {
      throw Error(EOPNOTSUPP,
                  fmt::format("{}: the hypervisor is another machine, whose "
                              "guests' sockets come to this one by qemu+ssh "
                              "alone",
                              what));
    }
    if (caller.uid != sandbox.uid && caller.uid != 0) {
      throw Error(EPERM,
                  fmt::format("{}: sockets are made with the rights of user "
                              "{}, who owns '{}'; let them write it",
                              what, sandbox.uid, sandbox.name));
    }
  }
}

bool Tunnels::Serves(const Sandbox* sandbox) const {
  return sandbox != nullptr && sandbox->ours && !core_.test_driver &&
         core_.ReachesGuests() && sandbox->ssh_port != 0 &&
         geteuid() == sandbox->uid;
}

void Tunnels::Note(const Sandbox& sandbox, const std::string& digest) {
  constexpr char kWhat[] = "Cannot note the guest's sockets";
  if (NotedTunnels(sandbox.domain_xml.Text()) == digest) return;
  const DomainPtr domain = core_.Domain(sandbox.uuid, kWhat);
  const std::string xml = fmt::format("<tunnels digest='{}'/>", digest);
  if (virDomainSetMetadata(domain.get(), VIR_DOMAIN_METADATA_ELEMENT,
                           xml.c_str(), kTunnelsPrefix, kTunnelsUri,
                           VIR_DOMAIN_AFFECT_LIVE) < 0) {
    ThrowLibvirt(kWhat);
  }
  core_.Read(sandbox.uuid);
}

void Tunnels::Settle(const Sandbox& sandbox) {
  const Turns::Turn turn = core_.turns.Take(
      "tunnels " + sandbox.uuid, "change the sockets", kTunnelPatience);
  const auto tunnels = TunnelsOf(core_.SpecFor(sandbox));
  try {
    SettleTurn(sandbox, tunnels);
  } catch (...) {
    Note(sandbox, "-");
    throw;
  }
  Note(sandbox, TunnelsDigest(tunnels));
}

void Tunnels::SettleTurn(const Sandbox& sandbox,
                         const std::vector<Tunnel>& tunnels) {
  const stdfs::path dir = MakeRunDirectory(sandbox.uuid);
  (void)mkdir((dir / "sock").c_str(), 0700);
  // What leads to the last guest is of no use to this one.
  const std::string run = fmt::format(
      "{:x}",
      sandbox.usage.started.value_or(Time()).time_since_epoch().count());
  std::map<std::string, Tunnel> wanted;  // by their slips' names
  for (const Tunnel& tunnel : tunnels) wanted.emplace(SlipName(tunnel), tunnel);
  for (const std::string& name : SlipsIn(dir, kTunnelPrefix)) {
    const auto slip = ReadSlip(dir / name);
    if (slip && wanted.count(name) != 0 && slip->digest == run) {
      wanted.erase(name);
    } else {
      StopMountServer(dir / name);
    }
  }
  std::optional<Error> failure;
  for (const auto& [name, tunnel] : wanted) {
    try {
      Begin(sandbox, tunnel, dir / name, run);
      Await(sandbox, tunnel, dir / name);
    } catch (const Error& error) {
      StopMountServer(dir / name);
      if (!failure) failure = error;
    }
  }
  if (failure) throw *failure;
}

void Tunnels::Begin(const Sandbox& sandbox, const Tunnel& tunnel,
                    const stdfs::path& slip, const std::string& digest) {
  const std::string what = What(sandbox, tunnel);
  // A socket that is ours to make: ssh's, or the proxy's behind it.
  const bool makes = !tunnel.reverse || !tunnel.egress.empty();
  if (makes && IsSocket(tunnel.host)) MakeRoom(tunnel.host, what);
  if (tunnel.reverse && IsSocket(tunnel.guest)) {
    // The guest's sshd takes no path at which there is something.
    (void)RunInGuest(core_, sandbox.uuid,
                     fmt::format("p={}; [ -S \"$p\" ] && rm -f \"$p\"; true",
                                 ShellQuote(tunnel.guest)),
                     "", 30s);
  }
  auto words = SshWords({sandbox.ssh_port, sandbox.user, sandbox.host_key,
                         core_.data_dir + "/id_ed25519"},
                        "");
  words.pop_back();  // no command: -N
  auto options = ForwardingWords();
  options.insert(options.begin(), "-N");
  for (auto& word : SshWords(tunnel)) options.push_back(std::move(word));
  words.insert(words.begin() + 1, options.begin(), options.end());
  if (tunnel.egress.empty()) {
    StartTunnelProcess(slip, digest, words);
  } else {
    StartEgressProxy(slip, digest, tunnel.host, tunnel.egress, words);
  }
}

void Tunnels::Await(const Sandbox& sandbox, const Tunnel& tunnel,
                    const stdfs::path& slip) {
  const auto until = std::chrono::steady_clock::now() + kTunnelPatience;
  const bool visible = !tunnel.reverse && IsSocket(tunnel.host);
  // A port, or a socket in the guest, is there when ssh still lives after what
  // it takes to be refused one.
  std::optional<std::chrono::steady_clock::time_point> settled;
  for (;;) {
    std::this_thread::sleep_for(100ms);
    const std::string said = LastLogLine(slip);
    if (!ReadSlip(slip)) {
      throw Error(
          EIO,
          fmt::format("{}: {}", What(sandbox, tunnel),
                      said.empty() || said == kLoggedIn ? "ssh ended" : said));
    }
    const auto now = std::chrono::steady_clock::now();
    if (!settled && said == kLoggedIn) settled = now + 1s;
    if (visible ? Listens(tunnel.host) : settled && now > *settled) return;
    if (now > until) {
      throw Error(ETIMEDOUT,
                  fmt::format("{}: it was not there within {} s",
                              What(sandbox, tunnel), kTunnelPatience.count()));
    }
  }
}

bool Tunnels::IsIdle(const Sandbox& sandbox) {
  const bool runs = sandbox.state == State::kRunning;
  if (!sandbox.Booted()) {
    MutexLock lock(mutex_);
    const bool early = early_.count(sandbox.uuid) != 0;
    if (!early || (!runs && sandbox.state != State::kStarting)) return true;
  } else if (!runs) {
    return true;
  }
  if (!NotedTunnels(sandbox.domain_xml.Text()).empty()) return false;
  try {
    return TunnelsOf(core_.SpecOf(sandbox)).empty();
  } catch (const Error&) {
    return true;  // `pending` tells
  }
}

void Tunnels::LookEarly(const std::string& uuid) {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  try {
    if (sandbox == nullptr || core_.SpecOf(*sandbox).egress.empty()) return;
  } catch (const Error&) {
    return;  // `pending` tells
  }
  {
    MutexLock lock(mutex_);
    early_.insert(uuid);
  }
  Look(uuid);
}

void Tunnels::Look(const std::string& uuid) {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  if (!Serves(sandbox.get()) || IsIdle(*sandbox)) return;
  {
    MutexLock lock(mutex_);
    if (!watched_.insert(uuid).second) return;
  }
  core_.workers.Run([this, uuid] { Watch(uuid); });
}

void Tunnels::Watch(const std::string& uuid) {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  if (!Serves(sandbox.get()) || IsIdle(*sandbox)) {
    if (sandbox == nullptr || IsOff(sandbox->state)) Forget(uuid);
    {
      MutexLock lock(mutex_);
      watched_.erase(uuid);
      told_.erase(uuid);
      early_.erase(uuid);
    }
    Look(uuid);  // it may have changed just now
    return;
  }
  std::optional<Error> failure;
  try {
    Settle(*sandbox);
  } catch (...) {
    failure = CurrentError();
  }
  bool news = false;
  {
    MutexLock lock(mutex_);
    const std::string sentence = failure ? failure->Sentence() : "";
    news = std::exchange(told_[uuid], sentence) != sentence && failure;
  }
  if (news) core_.catalog.ReportEnd(uuid, &*failure);
  core_.timer.After(failure ? 15s : 2s, [this, uuid] {
    core_.workers.Run([this, uuid] { Watch(uuid); });
  });
}

}  // namespace sbxfs
