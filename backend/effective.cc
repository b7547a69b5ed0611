#include "backend/effective.h"

#include <fmt/format.h>

#include "backend/spec/layers.h"

namespace sbxfs {
namespace {

// What is not written in any layer: add to it what else is chosen.
std::vector<Fact> FactsOf(const Host& host, const Sandbox& sandbox) {
  std::vector<Fact> facts;
  const auto add = [&facts](const char* key, std::string value) {
    if (!value.empty()) facts.push_back({key, std::move(value)});
  };
  add("accelerator", host.accelerator);
  if (sandbox.ssh_port != 0) {
    add("ssh.localPort", fmt::to_string(sandbox.ssh_port));
  }
  add("mountType", sandbox.mount_way);
  add("networks", sandbox.no_networks);
  return facts;
}

}  // namespace

std::string Effective(const Core& core, const Sandbox& sandbox) {
  if (!sandbox.ours) return "# it was not made by sbxfs; see domain.xml\n";
  std::vector<Layer> layers = {{"built-in", BuiltInLayer(sandbox.user)}};
  for (Layer& layer : core.LayersOf(sandbox.config, sandbox.bases)) {
    layers.push_back(std::move(layer));
  }
  try {
    (void)ParseSpec(layers);
    return EffectiveText(layers, FactsOf(*core.catalog.GetHost(), sandbox));
  } catch (const Error& error) {
    return fmt::format("# {}\n", error.Sentence());
  }
}

}  // namespace sbxfs
