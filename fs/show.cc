#include "fs/show.h"

#include <fmt/format.h>

#include <algorithm>

#include "backend/util/text.h"
#include "fs/event_log.h"
#include "fs/ssh_text.h"
#include "fs/tree.h"

namespace sbxfs::show {
namespace {

// A line, or nothing at all.
std::string Line(std::string text) {
  if (!text.empty() && text.back() != '\n') text += '\n';
  return text;
}

std::string Age(Time since) {
  constexpr std::int64_t kMinute = 60;
  constexpr std::int64_t kHour = 60 * kMinute;
  constexpr std::int64_t kDay = 24 * kHour;
  const std::int64_t age = std::chrono::duration_cast<std::chrono::seconds>(
                               std::chrono::system_clock::now() - since)
                               .count();
  if (age < kMinute) return fmt::format("{}s", std::max<std::int64_t>(age, 0));
  if (age < kHour) return fmt::format("{}m", age / kMinute);
  if (age < 2 * kDay) return fmt::format("{}h", age / kHour);
  return fmt::format("{}d", age / kDay);
}

std::string OrDash(std::string text) {
  return text.empty() ? std::string("-") : text;
}

std::string Table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string text;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i + 1 < row.size(); ++i) {
      text += fmt::format("{:<{}}  ", row[i], widths[i]);
    }
    text += row.back() + '\n';
  }
  return text;
}

}  // namespace

std::string Config(const View& view) { return view.sandbox->config; }
std::string Rejected(const View& view) { return view.sandbox->rejected; }
std::string Cpus(const View& view) {
  return fmt::format("{}\n", view.sandbox->cpus);
}
std::string Memory(const View& view) {
  return FormatSize(view.sandbox->memory) + '\n';
}
std::string Disk(const View& view) {
  return FormatSize(view.sandbox->disk) + '\n';
}
std::string Description(const View& view) {
  return Line(view.sandbox->description);
}
std::string Autostart(const View& view) {
  return view.sandbox->autostart ? "yes\n" : "no\n";
}
std::string Pending(const View& view) { return Line(view.sandbox->pending); }
std::string Status(const View& view) {
  return std::string(StateName(view.sandbox->state)) + '\n';
}
std::string Reason(const View& view) { return Line(view.sandbox->reason); }

std::string Ready(const View& view) {
  const Sandbox& sandbox = *view.sandbox;
  if (sandbox.ready) return fmt::format("yes {:.1f}\n", sandbox.ready_seconds);
  if (!sandbox.ready_for.empty()) return "no: " + Line(sandbox.ready_for);
  return fmt::format("no: it is {}\n", StateName(sandbox.state));
}

std::string Progress(const View& view) { return Line(view.sandbox->progress); }

std::string HostName(const View& view) {
  // With one hypervisor nobody has named it.
  return Line(view.sandbox->host.empty() ? view.host->uri : view.sandbox->host);
}

std::string SandboxError(const View& view) {
  std::string text = view.tree.errors.OfSandbox(view.sandbox->uuid);
  // The book is this mount's; a refused text is known to all.
  if (text.empty() && !view.sandbox->rejected.empty()) {
    text = view.sandbox->rejected_reason;
  }
  return Line(text);
}

std::string UsageText(const View& view) {
  const Usage& usage = view.sandbox->usage;
  return fmt::format(
      "cpu_usec {}\nmemory_bytes {}\ndisk_bytes {}\nsnapshot_bytes {}\n"
      "block_read_bytes {}\nblock_written_bytes {}\nnet_received_bytes {}\n"
      "net_sent_bytes {}\nstarted {}\n",
      usage.cpu_usec, usage.memory_bytes, usage.disk_bytes,
      usage.snapshot_bytes, usage.block_read_bytes, usage.block_written_bytes,
      usage.net_received_bytes, usage.net_sent_bytes,
      usage.started ? FormatTime(*usage.started) : "never");
}

std::string StandsOn(const View& view) { return Line(view.sandbox->snapshot); }
std::string Nothing(const View&) { return {}; }
std::string SnapshotCreated(const View& view) {
  return FormatTime(view.snapshot->created) + '\n';
}
std::string SnapshotKind(const View& view) { return Line(view.snapshot->kind); }
std::string SnapshotSize(const View& view) {
  return fmt::format("{}\n", view.snapshot->size);
}
std::string SnapshotParent(const View& view) {
  return Line(view.snapshot->parent);
}
std::string SnapshotDescription(const View& view) {
  return Line(view.snapshot->description);
}
std::string SnapshotConfig(const View& view) { return view.snapshot->config; }

std::string SshPort(const View& view) {
  const int port = view.sandbox->ssh_port;
  return port == 0 ? std::string() : fmt::format("{}\n", port);
}
std::string SshConfig(const View& view) { return SshHost(view, *view.sandbox); }
std::string AuthorizedKeys(const View& view) {
  return Line(view.sandbox->authorized_keys);
}
std::string KnownHosts(const View& view) {
  return KnownHostLines(*view.sandbox);
}

std::string Ip(const View& view) {
  std::string text;
  for (const auto& address : view.sandbox->addresses) text += address + '\n';
  if (!text.empty()) return text;
  const Sandbox& sandbox = *view.sandbox;
  if (sandbox.ready || sandbox.ready_for.empty()) {
    return "none: neither the guest's agent nor a lease nor the hypervisor's "
           "neighbours tell one\n";
  }
  return fmt::format("none: {}\n", sandbox.ready_for);
}

std::string Effective(const View& view) {
  return view.tree.backend.Effective(view.sandbox->uuid);
}

std::string ProvisionLog(const View& view) {
  const auto& text = view.sandbox->provision_log;
  return text == nullptr ? std::string() : *text;
}

std::string DomainXml(const View& view) {
  return Line(view.sandbox->domain_xml.Text());
}

// Ages have one width: a list that shrinks while it is copied upsets rsync.
std::string List(const View& view) {
  std::vector<std::vector<std::string>> rows = {
      {"NAME", "STATE", "IP", "PORT", "CPUS", "MEMORY", "DISK", " AGE"}};
  const bool several = !view.tree.backend.Members().empty();
  if (several) rows.front().insert(rows.front().begin() + 1, "HOST");
  Access access(view.reader);
  for (const auto& sandbox : view.tree.backend.List()) {
    if (!access.MayUse(*sandbox)) continue;
    const auto& addresses = sandbox->addresses;
    rows.push_back(
        {sandbox->name, std::string(StateName(sandbox->state)),
         addresses.empty() ? "-" : addresses.front(),
         sandbox->ssh_port == 0 ? "-" : std::to_string(sandbox->ssh_port),
         std::to_string(sandbox->cpus), FormatSize(sandbox->memory),
         FormatSize(sandbox->disk),
         view.steady ? "" : fmt::format("{:>4}", Age(sandbox->created))});
    if (several) rows.back().insert(rows.back().begin() + 1, sandbox->host);
  }
  return Table(rows);
}

// Who has a disk now comes first; sandboxes that the reader may not use count,
// but have no name.
std::string DiskList(const View& view) {
  std::vector<std::vector<std::string>> rows = {
      {"NAME", "SIZE", "TAKEN_BYTES", "SANDBOXES"}};
  Access access(view.reader);
  const auto all = view.tree.backend.List();
  for (const ExtraDisk& disk : view.host->disks) {
    std::string users;
    for (const bool off : {false, true}) {
      for (const auto& sandbox : all) {
        if (!sandbox->disks.contains(disk.name) ||
            IsOff(sandbox->state) != off) {
          continue;
        }
        if (!users.empty()) users += ',';
        users += access.MayUse(*sandbox) ? sandbox->name : "?";
        if (!off) users += fmt::format("({})", StateName(sandbox->state));
      }
    }
    rows.push_back({disk.name, FormatSize(disk.size),
                    view.steady ? "" : std::to_string(disk.taken),
                    OrDash(users)});
  }
  return Table(rows);
}

std::string NetworkConfig(const View& view) { return view.network->config; }
std::string NetworkState(const View& view) {
  return view.network->active ? "active\n" : "inactive\n";
}

std::string NetworkLeases(const View& view) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& lease : view.network->leases) {
    rows.push_back({lease.address, lease.mac, OrDash(lease.hostname),
                    FormatTime(lease.expires)});
  }
  return Table(rows);
}

// Sandboxes that the reader may not use count, but have no name.
std::string NetworkMembers(const View& view) {
  std::string text;
  Access access(view.reader);
  for (const auto& name : view.network->members) {
    const auto sandbox = view.tree.backend.Find(name);
    text += Line(sandbox && access.MayUse(*sandbox) ? name : "?");
  }
  return text;
}

std::string Uri(const View& view) { return Line(view.host->uri); }

std::string UriExplain(const View& view) { return view.host->route; }

std::string Connection(const View& view) {
  const Host& host = *view.host;
  std::string text =
      fmt::format("{} since {}", host.connected ? "connected" : "disconnected",
                  FormatTime(host.since));
  if (!host.connected) text += ": " + OrDash(host.why);
  return Line(text) + Line(host.notes);
}

std::string HostError(const View& view) {
  return view.tree.errors.OfCaller(view.reader.uid);
}

std::string Capacity(const View& view) {
  const Host& host = *view.host;
  uint64_t reclaimable = 0;
  for (const auto& sandbox : view.tree.backend.ListTrash()) {
    reclaimable += sandbox->usage.disk_bytes;
  }
  return fmt::format(
      "hypervisor {}\naccelerator {}\ncpus {}\nmemory_bytes {}\n"
      "memory_free_bytes {}\npool {}\npool_bytes {}\npool_free_bytes {}\n"
      "disk_pool {}\ndisk_pool_bytes {}\ndisk_pool_free_bytes {}\n"
      "reclaimable_bytes {}\n",
      OrDash(host.hypervisor), OrDash(host.accelerator), host.cpus, host.memory,
      host.memory_free, OrDash(host.pool), host.pool_size, host.pool_available,
      OrDash(host.disk_pool), host.disk_pool_size, host.disk_pool_available,
      reclaimable);
}

std::string Warm(const View& view) { return view.host->warm; }

std::string Defaults(const View& view) { return view.host->defaults; }
std::string Overrides(const View& view) { return view.host->overrides; }
std::string HostAuthorizedKeys(const View& view) {
  return Line(view.host->authorized_keys);
}

std::string SshCa(const View& view) { return Line(view.host->ssh_ca); }

std::string HostSshConfig(const View& view) {
  std::string text;
  Access access(view.reader);
  for (const auto& sandbox : view.tree.backend.List()) {
    if (access.MayUse(*sandbox)) text += SshHost(view, *sandbox);
  }
  return text;
}

}  // namespace sbxfs::show
