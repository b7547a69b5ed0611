#include "backend/backend.h"

#include <array>
#include <cerrno>
#include <utility>

namespace sbxfs {
namespace {

constexpr std::array<std::pair<State, std::string_view>, 10> kStates{{
    {State::kProvisioning, "provisioning"},
    {State::kStopped, "stopped"},
    {State::kStarting, "starting"},
    {State::kRunning, "running"},
    {State::kStopping, "stopping"},
    {State::kPaused, "paused"},
    {State::kSaved, "saved"},
    {State::kCrashed, "crashed"},
    {State::kDestroying, "destroying"},
    {State::kUnreachable, "unreachable"},
}};

constexpr std::array<std::pair<Verb, std::string_view>, 10> kVerbs{{
    {Verb::kStart, "start"},
    {Verb::kStop, "stop"},
    {Verb::kKill, "kill"},
    {Verb::kRestart, "restart"},
    {Verb::kPause, "pause"},
    {Verb::kResume, "resume"},
    {Verb::kSave, "save"},
    {Verb::kReset, "reset"},
    {Verb::kFactoryReset, "factory-reset"},
    {Verb::kDestroy, "destroy"},
}};

template <typename Table, typename Key>
std::string_view NameOf(const Table& table, Key key) {
  for (const auto& [value, name] : table) {
    if (value == key) return name;
  }
  return "unknown";
}

template <typename Key, typename Table>
std::optional<Key> ValueOf(const Table& table, std::string_view word) {
  for (const auto& [value, name] : table) {
    if (name == word) return value;
  }
  return std::nullopt;
}

constexpr std::array<std::pair<Collection, std::string_view>, 3> kCollections{{
    {Collection::kMounts, "mounts"},
    {Collection::kPorts, "ports"},
    {Collection::kSecrets, "secrets"},
}};

}  // namespace

std::string_view StateName(State state) { return NameOf(kStates, state); }
std::optional<State> ParseState(std::string_view name) {
  return ValueOf<State>(kStates, name);
}
bool IsOn(State state) {
  return state == State::kRunning || state == State::kPaused ||
         state == State::kStopping || state == State::kStarting;
}

bool IsOff(State state) {
  return state == State::kStopped || state == State::kCrashed;
}
std::string_view VerbName(Verb verb) {
  return verb == Verb::kRevert ? "revert" : NameOf(kVerbs, verb);
}
std::optional<Verb> ParseVerb(std::string_view name) {
  return ValueOf<Verb>(kVerbs, name);
}
void Backend::SetHost(const Caller&, const std::string&,
                      const std::string& name, Reply<Done> reply) {
  reply.Fail(
      Error(EOPNOTSUPP, "Cannot move it to '" + name +
                            "': there is one hypervisor behind this mount; "
                            "-o hosts=FILE names several"));
}
std::string_view CollectionName(Collection collection) {
  return NameOf(kCollections, collection);
}
std::string VerbList() {
  std::string list;
  for (const auto& [verb, name] : kVerbs) {
    if (!list.empty()) list += ", ";
    list += name;
  }
  return list;
}

}  // namespace sbxfs
