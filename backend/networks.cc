#include "backend/networks.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <set>

#include "backend/libvirt_error.h"
#include "backend/network_filter.h"
#include "backend/util/log.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// A sandbox that is restarted finds its network as it was.
constexpr auto kLinger = 5s;

NetworkFacts FactsOf(virNetworkPtr network) {
  return ParseNetwork(TakeString(virNetworkGetXMLDesc(network, 0)));
}

// What it is to be; what runs may be older. There is no such thing of a
// transient one, nor with the test driver.
NetworkFacts DefinedFactsOf(virNetworkPtr network) {
  const std::string xml =
      TakeString(virNetworkGetXMLDesc(network, VIR_NETWORK_XML_INACTIVE));
  return xml.empty() ? FactsOf(network) : ParseNetwork(xml);
}

std::vector<NetworkPtr> ListNetworks(virConnectPtr conn, unsigned flags,
                                     std::string_view what) {
  virNetworkPtr* all = nullptr;
  const int count = virConnectListAllNetworks(conn, &all, flags);
  if (count < 0) ThrowLibvirt(what);
  std::vector<NetworkPtr> networks(all, all + count);
  std::free(all);
  return networks;
}

std::vector<Network::Lease> LeasesOf(virNetworkPtr network) {
  virNetworkDHCPLeasePtr* found = nullptr;
  const int count = virNetworkGetDHCPLeases(network, nullptr, &found, 0);
  std::vector<Network::Lease> leases;
  for (int i = 0; i < count; ++i) {
    const auto text = [](const char* t) { return std::string(t ? t : ""); };
    leases.push_back({text(found[i]->ipaddr), text(found[i]->mac),
                      text(found[i]->hostname),
                      std::chrono::system_clock::from_time_t(
                          static_cast<time_t>(found[i]->expirytime))});
    virNetworkDHCPLeaseFree(found[i]);
  }
  std::free(found);
  std::sort(leases.begin(), leases.end(), [](const auto& a, const auto& b) {
    return std::pair(Ipv4Number(a.address), a.address) <
           std::pair(Ipv4Number(b.address), b.address);
  });
  return leases;
}

// Whoever runs them, as libvirt has it.
std::vector<std::string> MembersOf(virNetworkPtr network) {
  virNetworkPortPtr* ports = nullptr;
  const int count = virNetworkListAllPorts(network, &ports, 0);
  std::set<std::string> members;
  for (int i = 0; i < count; ++i) {
    members.insert(XmlText(TakeString(virNetworkPortGetXMLDesc(ports[i], 0)),
                           "/networkport/owner/name"));
    virNetworkPortFree(ports[i]);
  }
  std::free(ports);
  return {members.begin(), members.end()};
}

Network Describe(virNetworkPtr network) {
  const NetworkFacts facts = DefinedFactsOf(network);
  Network result{facts.name,   NetworkText(facts.plan),
                 facts.Ours(), virNetworkIsActive(network) == 1,
                 {},           {}};
  if (result.active) {
    result.members = MembersOf(network);
    result.leases = LeasesOf(network);
  }
  return result;
}

// A bridge of the hypervisor's, and not a card. Where libvirt cannot tell it
// is taken for one.
bool IsBridge(virConnectPtr conn, const std::string& name) {
  const std::unique_ptr<virInterface, LibvirtFree<virInterfaceFree>> interface(
      virInterfaceLookupByName(conn, name.c_str()));
  if (interface == nullptr) return true;
  const std::string type =
      XmlText(TakeString(virInterfaceGetXMLDesc(interface.get(), 0)),
              "/interface/@type");
  return type.empty() || type == "bridge";
}

// "box" as `lima-box`'s last part: what names in DNS are made of.
std::string Label(const std::string& name) {
  return GuestHostname(name).substr(5);
}

}  // namespace

void Networks::Refresh() {
  constexpr char kWhat[] = "Cannot list the networks";
  const uint64_t number = looks_.Begin();
  const ConnPtr conn = core_.connection.Get(kWhat);
  std::vector<Network> networks;
  if (core_.no_networks.empty()) {
    for (const auto& one : ListNetworks(conn.get(), 0, kWhat)) {
      try {
        networks.push_back(Describe(one.get()));
      } catch (const Error& error) {  // it goes just now
        spdlog::debug("{}", error.Sentence());
      }
    }
  }
  virResetLastError();
  std::sort(networks.begin(), networks.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  core_.catalog.ChangeHostIf([&](Host& host) {
    if (!looks_.Keeps(number) || host.networks == networks) return false;
    host.networks = networks;
    return true;
  });
}

void Networks::RefreshSoon() {
  if (refreshing_.exchange(true)) return;
  core_.workers.Run([this] {
    refreshing_ = false;
    try {
      Refresh();
    } catch (const Error& error) {
      spdlog::debug("{}", error.Sentence());
    }
  });
}

void Networks::Define(const std::string& name, const NetworkPlan& plan,
                      std::string_view what) {
  const ConnPtr conn = core_.connection.Get(what);
  const NetworkPtr network(virNetworkDefineXML(
      conn.get(),
      NetworkXml(name, plan, IsBridge(conn.get(), plan.interface)).c_str()));
  if (network == nullptr) ThrowLibvirt(what);
}

NetworkFacts Networks::Ours(const std::string& name, std::string_view what) {
  const ConnPtr conn = core_.connection.Get(what);
  const NetworkPtr network(virNetworkLookupByName(conn.get(), name.c_str()));
  if (network == nullptr) ThrowLibvirt(what);
  NetworkFacts facts = DefinedFactsOf(network.get());
  if (!facts.Ours()) {
    throw Error(EPERM, fmt::format("{}: others made it; virsh net-edit {} "
                                   "changes it, virsh net-undefine {} removes "
                                   "it",
                                   what, name, name));
  }
  return facts;
}

void Networks::Make(const std::string& name, Reply<Done> reply) {
  core_.workers.Run([this, name, reply] {
    const std::string what = fmt::format("Cannot make network '{}'", name);
    reply.Guard(what, [&] {
      if (!core_.no_networks.empty()) {
        throw Error(EOPNOTSUPP, fmt::format("{}: {}", what, core_.no_networks));
      }
      const Turns::Turn turn = TurnOf(name, what);
      const ConnPtr conn = core_.connection.Get(what);
      std::set<std::string> gateways;
      for (const auto& one : ListNetworks(conn.get(), 0, what)) {
        const NetworkFacts facts = DefinedFactsOf(one.get());
        if (facts.name == name) {
          throw Error(EEXIST, fmt::format("{}: there is one", what));
        }
        gateways.insert(facts.plan.gateway);
      }
      Define(name, NewNetwork(name, gateways), what);
      Refresh();
      reply.Ok();
    });
  });
}

void Networks::Set(const std::string& name, const std::string& config,
                   Reply<Done> reply) {
  core_.workers.Run([this, name, config, reply] {
    const std::string what = fmt::format("Cannot change network '{}'", name);
    reply.Guard(what, [&] {
      const Turns::Turn turn = TurnOf(name, what);
      const NetworkFacts facts = Ours(name, what);
      Define(name, ReadNetworkPlan(config, facts.plan), what);
      Refresh();
      reply.Ok();
    });
  });
}

void Networks::Remove(const std::string& name, Reply<Done> reply) {
  core_.workers.Run([this, name, reply] {
    const std::string what = fmt::format("Cannot remove network '{}'", name);
    reply.Guard(what, [&] {
      const Turns::Turn turn = TurnOf(name, what);
      (void)Ours(name, what);
      const ConnPtr conn = core_.connection.Get(what);
      const NetworkPtr network(
          virNetworkLookupByName(conn.get(), name.c_str()));
      if (network == nullptr) ThrowLibvirt(what);
      auto members = core_.WhoIsIn(name);
      const auto running = MembersOf(network.get());
      members.insert(running.begin(), running.end());
      if (!members.empty()) {
        throw Error(EBUSY,
                    fmt::format("{}: '{}' has it; take it out of networks in "
                                "its config.yaml, or destroy it, first",
                                what, *members.begin()));
      }
      if (virNetworkIsActive(network.get()) == 1 &&
          virNetworkDestroy(network.get()) < 0) {
        ThrowLibvirt(what);
      }
      if (virNetworkUndefine(network.get()) < 0) ThrowLibvirt(what);
      Refresh();
      reply.Ok();
    });
  });
}

void Networks::Check(const Spec& spec, std::string_view what) {
  if (spec.networks.empty() || !spec.isolated) return;
  throw Error(
      EINVAL,
      fmt::format("{}: 'network: none' lets the guest reach nobody, and "
                  "the network '{}' would be another way out; take one "
                  "of the two out of config.yaml",
                  what, spec.networks.front().name));
}

Turns::Turn Networks::TurnOf(const std::string& name, std::string_view what) {
  return core_.turns.Take("network " + name, what, 10s);
}

NetworkPtr Networks::Find(const std::string& name, std::string_view what) {
  const ConnPtr conn = core_.connection.Get(what);
  NetworkPtr network(virNetworkLookupByName(conn.get(), name.c_str()));
  if (network != nullptr) return network;
  const auto plan = BuiltInNetwork(name);
  if (virGetLastErrorCode() != VIR_ERR_NO_NETWORK) ThrowLibvirt(what);
  if (!plan) {
    throw Error(ENOENT,
                fmt::format("{}: there is no network '{}'; make it with mkdir "
                            ".host/networks/{}, or name shared, host, user-v2 "
                            "or another of .host/networks",
                            what, name, name));
  }
  Define(name, *plan, what);
  network.reset(virNetworkLookupByName(conn.get(), name.c_str()));
  if (network == nullptr) ThrowLibvirt(what);
  return network;
}

std::vector<Turns::Turn> Networks::Hold(const std::string& uuid,
                                        std::string_view what) {
  const auto facts = core_.Facts(uuid);
  if (!facts) return {};
  return Hold(uuid, facts->name, facts->nics, what);
}

std::vector<Turns::Turn> Networks::Hold(const std::string& uuid,
                                        const std::string& name,
                                        const std::vector<NetworkNic>& nics,
                                        std::string_view what) {
  std::vector<Turns::Turn> turns;
  if (nics.empty() || core_.test_driver) return turns;
  std::set<std::string> names;  // sorted, so that two starts do not meet
  for (const auto& nic : nics) names.insert(nic.network);
  for (const auto& nic : nics) {
    for (const auto& other : core_.WhoHasMac(uuid, nic.mac)) {
      throw Error(EADDRINUSE,
                  fmt::format("{}: the macAddress {} is that of '{}', which "
                              "runs; give the network '{}' another in "
                              "config.yaml, or none",
                              what, nic.mac, core_.NameOf(other), nic.network));
    }
  }
  for (const auto& wanted : names) {
    turns.push_back(TurnOf(wanted, what));
    const NetworkPtr network = Find(wanted, what);
    NetworkFacts facts = FactsOf(network.get());
    const bool ours = facts.Ours();
    if (virNetworkIsActive(network.get()) != 1) {
      if (!ours) {
        throw Error(EHOSTDOWN,
                    fmt::format("{}: the network '{}', which others made, does "
                                "not run; virsh net-start {}",
                                what, wanted, wanted));
      }
      if (facts.asks_others) {  // of an older sbxfs
        Define(wanted, facts.plan, what);
        facts.asks_others = false;
      }
      if (virNetworkCreate(network.get()) < 0) ThrowLibvirt(what);
    }
    if (std::any_of(nics.begin(), nics.end(), [&](const auto& nic) {
          return nic.network == wanted && !nic.filter.empty();
        })) {
      DefineFilter(facts, what);
    }
    if (!ours) continue;
    for (const auto& nic : nics) {
      if (nic.network == wanted) Join(network.get(), nic.mac, name, what);
    }
  }
  return turns;
}

void Networks::DefineFilter(const NetworkFacts& network,
                            std::string_view what) {
  const ConnPtr conn = core_.connection.Get(what);
  const FilterPtr filter(
      virNWFilterDefineXML(conn.get(), FilterXml(network, what).c_str()));
  if (filter != nullptr) return;
  const Error error = LibvirtError(what);
  if (virGetLastErrorCode() != VIR_ERR_NO_SUPPORT) throw error;
  throw Error(EOPNOTSUPP,
              fmt::format("{}: egress with the network '{}' needs nwfilters, "
                          "which this hypervisor's libvirt has none of; "
                          "install its nwfilter driver there, or take one of "
                          "the two out of config.yaml",
                          what, network.name));
}

void Networks::DropFilters() {
  constexpr char kWhat[] = "Cannot drop a filter";
  const ConnPtr conn = core_.connection.Get(kWhat);
  virNWFilterPtr* all = nullptr;
  const int count = virConnectListAllNWFilters(conn.get(), &all, 0);
  // A libvirt without the driver has none.
  const std::vector<FilterPtr> filters(all, all + std::max(count, 0));
  std::free(all);
  for (const auto& filter : filters) {
    const std::string_view name = virNWFilterGetName(filter.get());
    if (!name.starts_with(kFilter)) continue;
    const Turns::Turn turn =
        TurnOf(std::string(name.substr(kFilter.size())), kWhat);
    // libvirt refuses that of one that a running guest has.
    virNWFilterUndefine(filter.get());
  }
  virResetLastError();
}

void Networks::Join(virNetworkPtr network, const std::string& mac,
                    const std::string& name, std::string_view what) {
  const NetworkFacts facts = FactsOf(network);
  if (facts.first.empty()) return;
  const std::string address = AddressFor(facts, mac);
  if (address.empty()) {
    throw Error(ENOSPC, fmt::format("{}: the network '{}' has no address left; "
                                    "stop another of its members",
                                    what, facts.name));
  }
  const auto update = [&](unsigned command, unsigned section,
                          const std::string& xml) {
    if (virNetworkUpdate(network, command, section, -1, xml.c_str(),
                         VIR_NETWORK_UPDATE_AFFECT_LIVE) < 0) {
      ThrowLibvirt(what);
    }
  };
  const std::string lease = LeaseXml(mac, address, Label(name));
  const std::string dns = NamesXml(address, Label(name));
  const bool known = facts.hosts.count(Lower(mac)) != 0;
  // A name from before a mv goes.
  if (facts.names.count(address) != 0) {
    update(VIR_NETWORK_UPDATE_COMMAND_DELETE, VIR_NETWORK_SECTION_DNS_HOST,
           dns);
  }
  update(known ? VIR_NETWORK_UPDATE_COMMAND_MODIFY
               : VIR_NETWORK_UPDATE_COMMAND_ADD_LAST,
         VIR_NETWORK_SECTION_IP_DHCP_HOST, lease);
  update(VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, VIR_NETWORK_SECTION_DNS_HOST,
         dns);
}

void Networks::Look(const std::string& uuid) {
  // As libvirt has it: what is shown is `stopping` until its action has ended.
  if (core_.test_driver || !core_.catalog.IsOff(uuid)) return;
  if (core_.MayHaveNics(uuid)) LookLater();
}

void Networks::LookLater() {
  if (looking_.exchange(true)) return;
  core_.timer.After(kLinger, [this] {
    core_.workers.Run([this] {
      looking_ = false;
      try {
        EndUnused();
      } catch (const Error& error) {
        spdlog::debug("{}", error.Sentence());
        LookLater();
      }
    });
  });
}

void Networks::EndUnused() {
  constexpr char kWhat[] = "Cannot end a network";
  const ConnPtr conn = core_.connection.Get(kWhat);
  for (const auto& network :
       ListNetworks(conn.get(), VIR_CONNECT_LIST_NETWORKS_ACTIVE, kWhat)) {
    const NetworkFacts facts = FactsOf(network.get());
    if (!facts.Ours()) continue;
    const Turns::Turn turn = TurnOf(facts.name, kWhat);
    // Whoever runs them; counting takes none along.
    const int members = virNetworkListAllPorts(network.get(), nullptr, 0);
    if (members < 0) ThrowLibvirt(kWhat);
    if (members == 0 && virNetworkDestroy(network.get()) < 0) {
      ThrowLibvirt(kWhat);
    }
  }
  DropFilters();
}

}  // namespace sbxfs
