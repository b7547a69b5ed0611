#include "fs/layout.h"

#include <array>

#include "fs/job_text.h"
#include "fs/show.h"
#include "fs/store.h"

namespace sbxfs {
namespace {

using enum DirKind;
using enum Form;
using enum Clock;

bool HasCertificates(const View& view) {
  return view.sandbox && !view.sandbox->ssh_principal.empty();
}

bool HasRejected(const View& view) {
  return view.sandbox && !view.sandbox->rejected.empty();
}

const Row kRows[] = {
    {kRoot, "NAME.yaml", 0644, kDocument, nullptr, nullptr, kConfig,
     "makes sandbox NAME from that text; opened later it is NAME/config.yaml"},
    {kRoot, ".host", 0755, kDirectory, nullptr, nullptr, kConnected,
     "the hypervisor behind this mount"},
    {kRoot, "NAME", 0700, kDirectory, nullptr, nullptr, kUsed,
     "a sandbox: mkdir makes it, rmdir destroys it, mv renames it"},

    {kHost, "README", 0444, kValue, show::HostReadme, nullptr, kConnected,
     "how to drive the tree"},
    {kHost, "list", 0444, kValue, show::List, nullptr, kLastEvent,
     "a line for each sandbox: name, state, ip, port, cpus, memory, disk, age",
     true},
    {kHost, "disk_list", 0444, kValue, show::DiskList, nullptr, kLastEvent,
     "a line for each additional disk: name, size, bytes taken, who has it",
     true},
    {kHost, "uri", 0644, kValue, show::Uri, store::Uri, kConnected,
     "the libvirt URI in use"},
    {kHost, "uri.explain", 0444, kValue, show::UriExplain, nullptr, kConnected,
     "how that URI is reached: its parts, the ssh, what is ignored"},
    {kHost, "connection", 0444, kValue, show::Connection, nullptr, kConnected,
     "connected or disconnected, since when, why, and what to do", true},
    {kHost, "error", 0444, kValue, show::HostError, nullptr, kLastEvent,
     "your own last failures that belong to no sandbox, newest first"},
    {kHost, "events", 0444, kLog, nullptr, nullptr, kLastEvent,
     "what happened, a line each; tail -f follows", true},
    {kHost, "audit", 0444, kLog, nullptr, nullptr, kLastEvent,
     "who changed what through this mount; tail -f follows", true},
    {kHost, "capacity", 0444, kValue, show::Capacity, nullptr, kConnected,
     "cpus, memory and pool of the hypervisor", false, Facet::kCapacity},
    {kHost, "warm", 0444, kValue, show::Warm, nullptr, kConnected,
     "memory templates, which first starts go on from", false, Facet::kWarm},
    {kHost, "defaults.yaml", 0644, kDocument, show::Defaults, store::Defaults,
     kDefaults, "what a sandbox gets where its config.yaml is silent"},
    {kHost, "override.yaml", 0644, kDocument, show::Overrides, store::Overrides,
     kOverrides, "what wins over every config.yaml"},
    {kHost, "authorized_keys", 0600, kDocument, show::HostAuthorizedKeys,
     store::HostAuthorizedKeys, kDefaults, "ssh keys let into every sandbox"},
    {kHost, "ssh_ca.pub", 0444, kValue, show::SshCa, nullptr, kConnected,
     "the CA that sandboxes with ssh.ca trust"},
    {.dir = kHost,
     .name = "ssh_config",
     .mode = 0444,
     .form = kValue,
     .show = show::HostSshConfig,
     .store = nullptr,
     .clock = kLastEvent,
     .help = "ssh -F .host/ssh_config sbx-NAME; or Include it",
     .for_all = true},
    {kHost, "images", 0755, kDirectory, nullptr, nullptr, kConnected,
     "base images: cp x.qcow2 images/, rm"},
    {kHost, "disks", 0755, kDirectory, nullptr, nullptr, kConnected,
     "additional disks: echo 10GiB > disks/NAME makes or grows one; rm"},
    {kHost, "networks", 0755, kDirectory, nullptr, nullptr, kConnected,
     "libvirt's networks: mkdir makes one, rmdir removes it"},
    {kHost, "templates", 0755, kDirectory, nullptr, nullptr, kConnected,
     "texts to stand on: base: template:NAME is NAME.yaml here"},
    {kHost, "hosts", 0755, kDirectory, nullptr, nullptr, kConnected,
     "with -o hosts: each of the hypervisors; what .host has is the first's"},
    {kHost, "trash", 0755, kDirectory, nullptr, nullptr, kConnected,
     "what rmdir took: mv takes it back, rmdir is final"},

    {kHypervisor, "uri", 0644, kValue, show::Uri, store::Uri, kConnected,
     "its libvirt URI"},
    {kHypervisor, "uri.explain", 0444, kValue, show::UriExplain, nullptr,
     kConnected, "how that URI is reached"},
    {kHypervisor, "connection", 0444, kValue, show::Connection, nullptr,
     kConnected, "connected or disconnected, since when, why", true},
    {kHypervisor, "capacity", 0444, kValue, show::Capacity, nullptr, kConnected,
     "its cpus, memory and pool", false, Facet::kCapacity},
    {kHypervisor, "warm", 0444, kValue, show::Warm, nullptr, kConnected,
     "its memory templates", false, Facet::kWarm},
    {kHypervisor, "images", 0755, kDirectory, nullptr, nullptr, kConnected,
     "its base images"},
    {kHypervisor, "disks", 0755, kDirectory, nullptr, nullptr, kConnected,
     "its additional disks"},
    {kHypervisor, "networks", 0755, kDirectory, nullptr, nullptr, kConnected,
     "its networks"},

    {kNetwork, "config.yaml", 0644, kDocument, show::NetworkConfig,
     store::NetworkConfig, kConnected,
     "mode, gateway, dhcpEnd, netmask and interface, as Lima has them"},
    {kNetwork, "state", 0444, kValue, show::NetworkState, nullptr, kConnected,
     "active, or inactive", true},
    {kNetwork, "leases", 0400, kValue, show::NetworkLeases, nullptr, kConnected,
     "a line for each lease: address, MAC address, name, end", false,
     Facet::kNetworks},
    {kNetwork, "members", 0444, kValue, show::NetworkMembers, nullptr,
     kConnected, "the domains that run in it, a line each", false,
     Facet::kNetworks},

    {kSandbox, "README", 0444, kValue, show::SandboxReadme, nullptr, kState,
     "this sandbox at a glance"},
    {kSandbox, "config.yaml", 0666, kDocument, show::Config, store::Config,
     kConfig, "the sandbox as wanted, in Lima's vocabulary"},
    {kSandbox, "effective.yaml", 0444, kValue, show::Effective, nullptr,
     kConfig, "every setting that holds, and where each is from"},
    {.dir = kSandbox,
     .name = "config.yaml.rejected",
     .mode = 0444,
     .form = kValue,
     .show = show::Rejected,
     .store = nullptr,
     .clock = kUsed,
     .help = "the text that was refused last; rm forgets it",
     .present = HasRejected},
    {kSandbox, "cpus", 0666, kValue, show::Cpus, store::Cpus, kConfig,
     "number of processors"},
    {kSandbox, "memory", 0666, kValue, show::Memory, store::Memory, kConfig,
     "size of memory, 4GiB say"},
    {kSandbox, "disk", 0666, kValue, show::Disk, store::Disk, kConfig,
     "size of the disk, 100GiB say"},
    {kSandbox, "description", 0666, kValue, show::Description,
     store::Description, kConfig, "a line of your own"},
    {kSandbox, "autostart", 0666, kValue, show::Autostart, store::Autostart,
     kConfig, "yes: started with the host"},
    {kSandbox, "pending", 0444, kValue, show::Pending, nullptr, kUsed,
     "keys changed but in force only after a restart", true, Facet::kDomainXml},
    {kSandbox, "status", 0666, kValue, show::Status, store::Status, kState,
     "the state; write start, stop, kill, restart, pause, resume, save, reset, "
     "factory-reset, "
     "destroy or wait STATE",
     true},
    {kSandbox, "reason", 0444, kValue, show::Reason, nullptr, kState,
     "why it is in that state"},
    {kSandbox, "ready", 0444, kValue, show::Ready, nullptr, kState,
     "yes and the seconds it took, or no and what is waited for", true},
    {kSandbox, "progress", 0444, kValue, show::Progress, nullptr, kState,
     "what is being done now", true},
    {kSandbox, "error", 0444, kValue, show::SandboxError, nullptr, kUsed,
     "what failed last here, why, and what to do; empty after a success"},
    {kSandbox, "events", 0444, kLog, nullptr, nullptr, kLastEvent,
     "what happened to it, a line each", true},
    {kSandbox, "usage", 0444, kValue, show::UsageText, nullptr, kState,
     "counters: cpu, memory, disk, network", false, Facet::kUsage},
    {kSandbox, "host", 0666, kValue, show::HostName, store::HostName, kUsed,
     "the hypervisor it is on; with several write another to move it"},
    {kSandbox, "ssh_port", 0666, kValue, show::SshPort, store::SshPort, kConfig,
     "port of 127.0.0.1 that leads to its ssh"},
    {.dir = kSandbox,
     .name = "ssh_config",
     .mode = 0444,
     .form = kValue,
     .show = show::SshConfig,
     .store = nullptr,
     .clock = kConfig,
     .help = "ssh -F NAME/ssh_config sbx-NAME",
     .for_all = true},
    {.dir = kSandbox,
     .name = "ssh_cert",
     .mode = 0600,
     .form = kValue,
     .show = show::Nothing,
     .store = store::Certificate,
     .clock = kConfig,
     .help =
         "with ssh.ca: a certificate for ten minutes; write revoke to end all",
     .present = HasCertificates,
     .issued = true},
    {kSandbox, "authorized_keys", 0600, kDocument, show::AuthorizedKeys,
     store::AuthorizedKeys, kUsed, "ssh keys let in here"},
    {kSandbox, "known_hosts", 0444, kValue, show::KnownHosts, nullptr, kConfig,
     "the guest's host key"},
    {kSandbox, "ip", 0444, kValue, show::Ip, nullptr, kState,
     "addresses, one a line, or why there is none", false, Facet::kAddresses},
    {kSandbox, "console.log", 0444, kConsole, nullptr, nullptr, kState,
     "the serial console; tail -f follows", false, Facet::kConsole},
    {kSandbox, "provision.log", 0444, kValue, show::ProvisionLog, nullptr,
     kState, "what the provision scripts of this boot said", false,
     Facet::kProvisionLog},
    {kSandbox, "domain.xml", 0444, kValue, show::DomainXml, nullptr, kState,
     "what libvirt has", false, Facet::kDomainXml},
    {kSandbox, "commit", 0222, kValue, show::Nothing, store::Commit, kUsed,
     "write NAME: its disk as it is becomes .host/images/NAME"},
    {kSandbox, "snapshot", 0666, kValue, show::StandsOn, store::Revert, kUsed,
     "the snapshot its disk stands on; write another to go back to it", true},
    {kSandbox, "mounts", 0777, kDirectory, nullptr, nullptr, kConfig,
     "write LOCATION[:w]: that host directory is in the guest; rm"},
    {kSandbox, "ports", 0777, kDirectory, nullptr, nullptr, kConfig,
     "write [ADDRESS:]PORT of the host for a port of the guest; rm"},
    {kSandbox, "sock", 0555, kDirectory, nullptr, nullptr, kState,
     "sockets that are forwarded: links to them on this machine"},
    {kSandbox, "secrets", 0700, kDirectory, nullptr, nullptr, kState,
     "write KEY: the running guest gets /run/sbxfs/KEY and the variable KEY"},
    {kSandbox, "exec", 0700, kDirectory, nullptr, nullptr, kState,
     "commands in the guest: mkdir makes a job, a write to command runs it"},
    {kSandbox, "snapshots", 0777, kDirectory, nullptr, nullptr, kUsed,
     "states of its disk: mkdir takes one, rmdir deletes it, mv renames it"},
    {kSandbox, "clones", 0777, kDirectory, nullptr, nullptr, kUsed,
     "mkdir makes a sandbox of its disk as it is; links to those there are"},
    {.dir = kSandbox,
     .name = "fs",
     .mode = 0700,
     .form = kDirectory,
     .show = nullptr,
     .store = nullptr,
     .clock = kState,
     .help = "the files of the guest that runs, as its user has them; not "
             "listed",
     .listed = false},

    {kSnapshot, "created", 0444, kValue, show::SnapshotCreated, nullptr, kUsed,
     "when it was taken"},
    {kSnapshot, "kind", 0444, kValue, show::SnapshotKind, nullptr, kUsed,
     "disk, or disk quiesced when the guest's file systems were at rest"},
    {kSnapshot, "size", 0444, kValue, show::SnapshotSize, nullptr, kUsed,
     "bytes that it takes", false, Facet::kSnapshots},
    {kSnapshot, "parent", 0444, kValue, show::SnapshotParent, nullptr, kUsed,
     "the snapshot it came from"},
    {kSnapshot, "description", 0666, kValue, show::SnapshotDescription,
     store::SnapshotDescription, kUsed, "a line of your own"},
    {kSnapshot, "config.yaml", 0444, kValue, show::SnapshotConfig, nullptr,
     kUsed, "config.yaml as it was"},
    {kSnapshot, "clones", 0777, kDirectory, nullptr, nullptr, kUsed,
     "mkdir makes a sandbox of it; links to those there are"},
    {.dir = kSnapshot,
     .name = "fs",
     .mode = 0500,
     .form = kDirectory,
     .show = nullptr,
     .store = nullptr,
     .clock = kUsed,
     .help = "the files that its disk has; not listed",
     .listed = false},

    {kJob, "command", 0600, kValue, show::JobCommand, store::JobCommand, kState,
     "write what the guest's shell is to run; back when it has ended"},
    {kJob, "argv", 0600, kValue, show::JobArgv, store::JobArgv, kState,
     "the same without a shell: words, each ended by NUL"},
    {kJob, "env", 0600, kValue, show::JobEnv, store::JobEnv, kState,
     "variables, KEY=value, a line each"},
    {kJob, "cwd", 0600, kValue, show::JobCwd, store::JobCwd, kState,
     "its directory in the guest"},
    {kJob, "user", 0600, kValue, show::JobUser, store::JobUser, kState,
     "whose it is in the guest"},
    {kJob, "stdin", 0600, kDocument, show::JobInput, store::JobInput, kState,
     "what it reads"},
    {kJob, "deadline", 0600, kValue, show::JobDeadline, store::JobDeadline,
     kState, "seconds after which it is ended, or none"},
    {kJob, "state", 0400, kValue, show::JobStateText, nullptr, kState,
     "new, running, ended or lost", true},
    {kJob, "reason", 0400, kValue, show::JobReason, nullptr, kState,
     "why it is in that state"},
    {kJob, "stdout", 0400, kConsole, nullptr, nullptr, kState,
     "what it says; tail -f follows", true},
    {kJob, "stderr", 0400, kConsole, nullptr, nullptr, kState,
     "what it complains of; tail -f follows", true},
    {kJob, "exit_code", 0400, kValue, show::JobExitCode, nullptr, kState,
     "how it ended; empty until then", true},
};

// The table is sorted by directory.
std::span<const Row> Range(DirKind dir) {
  const Row* begin = std::begin(kRows);
  while (begin->dir != dir) ++begin;
  const Row* end = begin;
  while (end != std::end(kRows) && end->dir == dir) ++end;
  return {begin, end};
}

}  // namespace

std::span<const Row> Rows(DirKind dir) {
  static const std::array<std::span<const Row>, 7> kRanges = {
      Range(kRoot),    Range(kHost),     Range(kHypervisor), Range(kNetwork),
      Range(kSandbox), Range(kSnapshot), Range(kJob)};
  return kRanges[static_cast<std::size_t>(dir)];
}

const Row* FindRow(DirKind dir, std::string_view name) {
  for (const Row& row : Rows(dir)) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

std::vector<std::string_view> RowNames(DirKind dir) {
  std::vector<std::string_view> names;
  for (const Row& row : Rows(dir)) names.push_back(row.name);
  return names;
}

}  // namespace sbxfs
