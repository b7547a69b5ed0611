#include "backend/facets.h"

#include <libvirt/virterror.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <vector>

#include "backend/guest/boot.h"
#include "backend/guest_shell.h"
#include "backend/libvirt_error.h"
#include "backend/snapshots.h"

namespace sbxfs {
namespace {

using Words = std::vector<std::string>;

constexpr char kCannotLook[] = "Cannot look at the sandbox";

// Sums the counters that the bulk call gives by name ("block.0.rd.bytes").
void AddCounter(std::string_view field, uint64_t value, Usage& usage) {
  if (field == "cpu.time") {
    usage.cpu_usec = value / 1000;
  } else if (field == "balloon.rss") {
    usage.memory_bytes = value * 1024;
  } else if (field.starts_with("block.") && field.ends_with(".rd.bytes")) {
    usage.block_read_bytes += value;
  } else if (field.starts_with("block.") && field.ends_with(".wr.bytes")) {
    usage.block_written_bytes += value;
  } else if (field.starts_with("net.") && field.ends_with(".rx.bytes")) {
    usage.net_received_bytes += value;
  } else if (field.starts_with("net.") && field.ends_with(".tx.bytes")) {
    usage.net_sent_bytes += value;
  }
}

Usage ReadUsage(Core& core, const std::string& uuid) {
  Usage usage;
  const DomainPtr domain = core.Domain(uuid, kCannotLook);
  if (!core.test_driver && virDomainIsActive(domain.get()) == 1) {
    virDomainPtr domains[] = {domain.get(), nullptr};
    virDomainStatsRecordPtr* records = nullptr;
    // NOWAIT: a guest in the middle of a job would hold the call up for 30 s.
    const int count = virDomainListGetStats(
        domains,
        VIR_DOMAIN_STATS_CPU_TOTAL | VIR_DOMAIN_STATS_BALLOON |
            VIR_DOMAIN_STATS_BLOCK | VIR_DOMAIN_STATS_INTERFACE,
        &records, VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT);
    if (count < 0) ThrowLibvirt(kCannotLook);
    for (int i = 0; i < count; ++i) {
      for (int j = 0; j < records[i]->nparams; ++j) {
        const virTypedParameter& param = records[i]->params[j];
        if (param.type == VIR_TYPED_PARAM_ULLONG) {
          AddCounter(param.field, param.value.ul, usage);
        }
      }
    }
    virDomainStatsRecordListFree(records);
  }
  const auto facts = core.Facts(uuid);
  if (core.test_driver || !facts) return usage;
  for (const auto& name : core.storage.Names()) {
    if (!IsLayerOf(name, uuid)) continue;
    const uint64_t bytes = core.storage.Get(name).allocation;
    usage.disk_bytes += bytes;
    if (name != facts->disk) usage.snapshot_bytes += bytes;
  }
  return usage;
}

// What a source of libvirt's says; nothing when it does not answer.
std::optional<Words> Addresses(virDomainPtr domain, unsigned source) {
  virDomainInterfacePtr* found = nullptr;
  const int count = virDomainInterfaceAddresses(domain, &found, source, 0);
  if (count < 0) {
    virResetLastError();
    return std::nullopt;
  }
  Words addresses;
  for (int i = 0; i < count; ++i) {
    for (unsigned j = 0; j < found[i]->naddrs; ++j) {
      const std::string address = found[i]->addrs[j].addr;
      const bool own = address.starts_with("127.") || address == "::1" ||
                       address.starts_with("fe80:");
      if (!own) addresses.push_back(address);
    }
    virDomainInterfaceFree(found[i]);
  }
  std::free(found);
  return addresses;
}

// What is known without the guest: the leases of libvirt's own networks, the
// hypervisor's neighbours on its bridges, and what QEMU's user-mode network
// gives its one guest.
Words AddressesFromOutside(virDomainPtr domain, const Sandbox& sandbox,
                           bool test_driver) {
  Words addresses;
  if (sandbox.ours && sandbox.ready && !test_driver) {
    addresses.emplace_back("192.168.5.15");
  }
  for (const unsigned source : {VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE,
                                VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP}) {
    for (auto& address : Addresses(domain, source).value_or(Words())) {
      if (std::find(addresses.begin(), addresses.end(), address) ==
          addresses.end()) {
        addresses.push_back(std::move(address));
      }
    }
  }
  return addresses;
}

bool HasIpv4(const Words& addresses) {
  return std::any_of(addresses.begin(), addresses.end(),
                     [](const auto& one) { return one.find(':') == one.npos; });
}

// The guest's agent knows all, but may take its time.
void ReadAddresses(Core& core, const std::string& uuid) {
  const auto put = [&](const Words& addresses) {
    core.catalog.Change(uuid, [&](Catalog::Overlay& overlay) {
      overlay.addresses = addresses;
    });
  };
  const DomainPtr domain = core.Domain(uuid, kCannotLook);
  if (virDomainIsActive(domain.get()) != 1) return put({});
  const SandboxPtr sandbox = core.catalog.Get(uuid);
  if (sandbox == nullptr) return;
  const bool agent = HasAgent(sandbox->domain_xml.Text());
  if (!agent || sandbox->addresses.empty()) {
    put(AddressesFromOutside(domain.get(), *sandbox, core.test_driver));
  }
  if (!agent) return;
  const auto told =
      Addresses(domain.get(), VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT);
  if (!told || told->empty()) return;
  // One that was just woken has no lease of its own again for a second.
  Words addresses;
  if (!HasIpv4(*told)) {
    addresses = AddressesFromOutside(domain.get(), *sandbox, core.test_driver);
  }
  addresses.insert(addresses.end(), told->begin(), told->end());
  put(addresses);
}

// While scripts run it grows; afterwards what is known is all there is. A guest
// that does not answer yet has said nothing yet.
void ReadProvisionLog(Core& core, const std::string& uuid) {
  const SandboxPtr sandbox = core.catalog.Get(uuid);
  if (core.test_driver || sandbox == nullptr || !sandbox->ours ||
      (sandbox->state != State::kRunning &&
       sandbox->state != State::kStarting) ||
      (sandbox->provision_log != nullptr && sandbox->Booted())) {
    return;
  }
  const auto text = std::make_shared<const std::string>(
      RunByAgent(core, uuid, kProvisionLogScript, "", std::chrono::seconds(5))
          .output);
  core.catalog.Change(
      uuid, [&](Catalog::Overlay& overlay) { overlay.provision_log = text; });
}

}  // namespace

void RefreshFacet(Core& core, const std::string& uuid, Facet facet) {
  (void)core.Reachable(uuid, kCannotLook);
  switch (facet) {
    case Facet::kUsage: {
      const Usage usage = ReadUsage(core, uuid);
      core.catalog.Change(
          uuid, [&](Catalog::Overlay& overlay) { overlay.usage = usage; });
      return;
    }
    case Facet::kAddresses:
      return ReadAddresses(core, uuid);
    case Facet::kConsole: {
      const auto facts = core.Facts(uuid);
      auto text = std::make_shared<std::string>();
      if (!core.test_driver && facts && facts->metadata &&
          !facts->metadata->console_volume.empty()) {
        *text = core.storage.Read(facts->metadata->console_volume, 0, 0);
      }
      const SandboxPtr before = core.catalog.Get(uuid);
      if (before != nullptr && before->console != nullptr &&
          *before->console == *text) {
        return;
      }
      core.catalog.Change(
          uuid, [&](Catalog::Overlay& overlay) { overlay.console = text; });
      return;
    }
    case Facet::kProvisionLog:
      return ReadProvisionLog(core, uuid);
    case Facet::kDomainXml:
      core.Read(uuid);
      return;
    case Facet::kSnapshots:
      core.Read(uuid);
      Snapshots(core).Measure(uuid);
      return;
    case Facet::kNetworks:
    case Facet::kCapacity:
    case Facet::kWarm:
      return;  // no sandbox's
  }
}

}  // namespace sbxfs
