#include "fs/store.h"

#include <fmt/format.h>

#include <cerrno>

#include "backend/util/text.h"
#include "fs/name.h"
#include "fs/tree.h"

namespace sbxfs::store {
namespace {

void Set(const Change& change, Setting setting, const std::string& value,
         Reply<Done> reply) {
  change.tree.backend.Set(change.caller, change.sandbox->uuid, setting, value,
                          std::move(reply));
}

// A single value: without the blanks around it, and never empty.
void SetValue(const Change& change, Setting setting, std::string_view noun,
              Reply<Done> reply) {
  const std::string_view value = Trim(change.text);
  if (value.empty()) {
    throw Error(EINVAL, fmt::format("Cannot set '{}': the line is empty; "
                                    "write a value",
                                    noun));
  }
  Set(change, setting, std::string(value), std::move(reply));
}

void WaitFor(const Change& change, std::string_view state, Reply<Done> reply) {
  const auto wanted = ParseState(Trim(state));
  if (!wanted) {
    throw Error(EINVAL,
                fmt::format("Cannot wait for '{}': no such state; there are "
                            "provisioning, stopped, starting, running, "
                            "stopping, paused, saved, crashed, destroying and "
                            "unreachable",
                            Trim(state)));
  }
  if (!change.wait && change.sandbox->state != *wanted) {
    throw Error(EAGAIN,
                fmt::format("Cannot wait for '{}' without blocking: "
                            "it is {}",
                            Trim(state), StateName(change.sandbox->state)));
  }
  change.tree.backend.WaitFor(change.sandbox->uuid, *wanted, std::move(reply));
}

}  // namespace

void Config(const Change& change, Reply<Done> reply) {
  Set(change, Setting::kConfig, change.text, std::move(reply));
}
void Cpus(const Change& change, Reply<Done> reply) {
  SetValue(change, Setting::kCpus, "cpus", std::move(reply));
}
void Memory(const Change& change, Reply<Done> reply) {
  SetValue(change, Setting::kMemory, "memory", std::move(reply));
}
void Disk(const Change& change, Reply<Done> reply) {
  SetValue(change, Setting::kDisk, "disk", std::move(reply));
}
void Description(const Change& change, Reply<Done> reply) {
  Set(change, Setting::kDescription, std::string(Trim(change.text)),
      std::move(reply));
}
void HostName(const Change& change, Reply<Done> reply) {
  change.tree.backend.SetHost(change.caller, change.sandbox->uuid,
                              std::string(Trim(change.text)), std::move(reply));
}
void SshPort(const Change& change, Reply<Done> reply) {
  SetValue(change, Setting::kSshPort, "ssh_port", std::move(reply));
}
void Certificate(const Change& change, Reply<Done> reply) {
  const std::string text(Trim(change.text));
  const std::string& uuid = change.sandbox->uuid;
  if (text == kRevoke) {
    change.tree.backend.RevokeCertificates(change.caller, uuid,
                                           std::move(reply));
    return;
  }
  change.tree.backend.Certify(
      change.caller, uuid, text,
      reply.Then<sbxfs::Certificate>([](const auto&) { return Done(); }));
}
void AuthorizedKeys(const Change& change, Reply<Done> reply) {
  Set(change, Setting::kAuthorizedKeys, change.text, std::move(reply));
}

void Autostart(const Change& change, Reply<Done> reply) {
  const std::string_view word = Trim(change.text);
  for (const std::string_view yes : {"yes", "true", "on", "1"}) {
    if (word == yes) {
      Set(change, Setting::kAutostart, "true", std::move(reply));
      return;
    }
  }
  for (const std::string_view no : {"no", "false", "off", "0"}) {
    if (word == no) {
      Set(change, Setting::kAutostart, "false", std::move(reply));
      return;
    }
  }
  throw Error(EINVAL, fmt::format("Cannot set 'autostart': '{}' is neither "
                                  "yes nor no; write one of them",
                                  word));
}

void Status(const Change& change, Reply<Done> reply) {
  const std::string_view words = Trim(change.text);
  if (words.starts_with("wait ")) {
    WaitFor(change, words.substr(5), std::move(reply));
    return;
  }
  const auto verb = ParseVerb(words);
  if (!verb) {
    throw Error(EINVAL, fmt::format("Cannot do '{}': no such verb; there are "
                                    "{} and wait STATE",
                                    words, VerbList()));
  }
  change.tree.backend.Act(change.caller, change.sandbox->uuid, *verb,
                          change.wait, std::move(reply));
}

void Commit(const Change& change, Reply<Done> reply) {
  const Name image = Name::Parse("commit to", Trim(change.text));
  change.tree.backend.Commit(change.caller, change.sandbox->uuid, image.Text(),
                             std::move(reply));
}
void Revert(const Change& change, Reply<Done> reply) {
  std::string_view tag = Trim(change.text);
  const bool force = tag.ends_with('!');
  if (force) tag.remove_suffix(1);
  if (tag.empty()) {
    throw Error(EINVAL,
                "Cannot set 'snapshot': the line names none; write the name of "
                "a directory in snapshots");
  }
  change.tree.backend.Revert(change.caller, change.sandbox->uuid,
                             std::string(tag), force, change.wait,
                             std::move(reply));
}
void SnapshotDescription(const Change& change, Reply<Done> reply) {
  change.tree.backend.DescribeSnapshot(
      change.caller, change.sandbox->uuid, change.entry,
      std::string(Trim(change.text)), std::move(reply));
}

void Uri(const Change& change, Reply<Done> reply) {
  change.tree.backend.SetUri(change.caller, std::string(Trim(change.text)),
                             std::move(reply));
}
void Defaults(const Change& change, Reply<Done> reply) {
  change.tree.backend.SetDocument(change.caller, "defaults.yaml", change.text,
                                  std::move(reply));
}
void Overrides(const Change& change, Reply<Done> reply) {
  change.tree.backend.SetDocument(change.caller, "override.yaml", change.text,
                                  std::move(reply));
}
void NetworkConfig(const Change& change, Reply<Done> reply) {
  change.tree.backend.SetNetwork(change.caller, change.entry, change.text,
                                 std::move(reply));
}
void HostAuthorizedKeys(const Change& change, Reply<Done> reply) {
  change.tree.backend.SetAuthorizedKeys(change.caller, change.text,
                                        std::move(reply));
}

}  // namespace sbxfs::store
