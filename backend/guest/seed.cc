#include "backend/guest/seed.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "backend/guest/boot.h"

namespace sbxfs {
namespace {

using Json = nlohmann::ordered_json;

// JSON is YAML but for characters beyond 16 bits: JSON's two halves are two
// broken characters to YAML, which writes \U and eight digits.
std::string ToYaml(const Json& json) {
  const std::string text =
      json.dump(2, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out += text[i];
      continue;
    }
    const auto unit = [&](size_t at) {
      return text.compare(at, 2, "\\u") == 0
                 ? std::stoul(text.substr(at + 2, 4), nullptr, 16)
                 : 0;
    };
    const unsigned long high = unit(i);
    if (high < 0xd800 || high > 0xdbff) {
      out += text[i++];  // with the character behind it: it may be a backslash
      out += text[i];
      continue;
    }
    char point[11];
    snprintf(point, sizeof point, "\\U%08lx",
             0x10000 + ((high - 0xd800) << 10) + (unit(i + 6) - 0xdc00));
    out += point;
    i += 11;
  }
  return out + "\n";
}

Json User(const SeedInput& input) {
  Json user = {{"name", input.user},
               {"sudo", "ALL=(ALL) NOPASSWD:ALL"},
               {"lock_passwd", true}};
  if (input.uid) user["uid"] = *input.uid;
  if (!input.home.empty()) user["homedir"] = input.home;
  if (!input.shell.empty()) user["shell"] = input.shell;
  if (!input.comment.empty()) user["gecos"] = input.comment;
  if (!input.authorized_keys.empty()) {
    user["ssh_authorized_keys"] = input.authorized_keys;
  }
  return user;
}

std::string UserData(const SeedInput& input) {
  Json data = {
      {"hostname", input.hostname},
      // Some distributions would make it HOSTNAME.localdomain.
      {"prefer_fqdn_over_hostname", false},
      // Unlike `true`, it keeps what the guest's user adds to /etc/hosts.
      {"manage_etc_hosts", "localhost"},
      // At each boot, before cloud-init makes users.
      {"bootcmd", Json::array({BootCommand()})},
      {"users", Json::array({User(input)})},
      {"disable_root", true},
      {"ssh_deletekeys", input.host_key.has_value()},
      {"growpart", {{"mode", "auto"}, {"devices", {"/"}}}},
      {"resize_rootfs", true},
      // The string: older schemas refuse the boolean, all take it as off.
      {"locale", "false"},
      {"package_update", false}};
  if (input.host_key) {
    // sshd of a stock image would offer rsa and ecdsa keys of its own too, and
    // our known_hosts has this one alone.
    data["ssh_genkeytypes"] = {"ed25519"};
    data["ssh_keys"] = {{"ed25519_private", input.host_key->private_key},
                        {"ed25519_public", input.host_key->public_key + "\n"}};
  }
  // config.yaml's networks of today, not those of the first boot.
  if (!input.nics.empty()) {
    data["updates"] = {{"network", {{"when", Json::array({"boot"})}}}};
  }
  return "#cloud-config\n" + ToYaml(data);
}

Json Ethernet(const std::string& name, const std::string& mac) {
  // Without set-name, renderers other than netplan look for an interface
  // that is called as the entry is.
  return {{"match", {{"macaddress", mac}}},
          {"set-name", name},
          {"dhcp4", true},
          {"dhcp-identifier", "mac"}};
}

std::string NetworkConfig(const std::string& mac,
                          const std::vector<SeedNic>& nics) {
  Json ethernets = {{"eth0", Ethernet("eth0", mac)}};
  // Lima's: a network's way out is preferred to the user-mode one.
  if (!nics.empty()) {
    ethernets["eth0"]["dhcp4-overrides"] = {{"route-metric", 200}};
  }
  for (const SeedNic& nic : nics) {
    Json ethernet = Ethernet(nic.interface, nic.mac);
    ethernet["dhcp4-overrides"] = {{"route-metric", nic.metric}};
    // Names of other members are asked for here, and nowhere else.
    ethernet["nameservers"] = {{"search", Json::array({"internal"})}};
    // A boot does not wait for it.
    ethernet["optional"] = true;
    ethernets[nic.interface] = std::move(ethernet);
  }
  return ToYaml({{"version", 2}, {"ethernets", ethernets}});
}

}  // namespace

std::vector<std::pair<std::string, std::string>> SeedDocuments(
    const SeedInput& input) {
  std::vector<std::pair<std::string, std::string>> documents = {
      {"user-data", UserData(input)},
      {"meta-data", ToYaml({{"instance-id", input.instance_id},
                            {"local-hostname", input.hostname}})}};
  if (!input.mac.empty()) {
    documents.emplace_back("network-config",
                           NetworkConfig(input.mac, input.nics));
  }
  documents.insert(documents.end(), input.boot.begin(), input.boot.end());
  return documents;
}

std::optional<KeyPair> HostKeyOf(std::string_view seed) {
  // An image holds each file in one piece, and user-data as ToYaml lays it
  // out. A boot script may look like it, but for the key.
  constexpr std::string_view kFile = "#cloud-config\n{\n";
  constexpr std::string_view kName = "\n  \"ssh_keys\": ";
  for (size_t file = seed.find(kFile); file != std::string_view::npos;
       file = seed.find(kFile, file + 1)) {
    const size_t name = seed.find(kName, file);
    if (name == std::string_view::npos) break;
    if (name > seed.find("\n}\n", file)) continue;
    std::string_view text = seed.substr(name + kName.size());
    text = text.substr(0, text.find('}') + 1);
    const Json keys = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!keys.is_object()) continue;
    const Json secret = keys.value("ed25519_private", Json());
    const Json shown = keys.value("ed25519_public", Json(""));
    if (!secret.is_string() || !shown.is_string()) continue;
    KeyPair key{secret, shown};
    if (key.public_key.ends_with('\n')) key.public_key.pop_back();
    return key;
  }
  return std::nullopt;
}

std::string MakeSeed(const SeedInput& input) {
  std::string seed = MakeIso("cidata", SeedDocuments(input));
  seed.resize((seed.size() + kSeedUnit - 1) / kSeedUnit * kSeedUnit, '\0');
  return seed;
}

}  // namespace sbxfs
