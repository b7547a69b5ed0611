#include "backend/actions.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <cerrno>
#include <utility>

#include "backend/chain_pull.h"
#include "backend/libvirt_error.h"
#include "backend/util/log.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

// A save may be on its last step yet.
constexpr auto kWakePause = 200ms;
constexpr int kWakeTries = 100;

}  // namespace

bool Actions::Holds(Verb verb, const Sandbox& sandbox) {
  switch (verb) {
    case Verb::kStart:
      return sandbox.state == State::kRunning &&
             (sandbox.ready || !sandbox.ours);
    case Verb::kStop:
    case Verb::kKill:
      return sandbox.state == State::kStopped;
    case Verb::kPause:
      return sandbox.state == State::kPaused;
    case Verb::kResume:
      return sandbox.state == State::kRunning;
    case Verb::kSave:
      return sandbox.state == State::kSaved;
    default:
      return false;
  }
}

void Actions::CheckState(Verb verb, const Sandbox& sandbox,
                         const std::string& what) {
  const State state = sandbox.state;
  auto refuse = [&](const char* reason) {
    throw Error(
        EBUSY, fmt::format("{}: it is {}; {}", what, StateName(state), reason));
  };
  switch (verb) {
    case Verb::kStart:
    case Verb::kRestart:
    case Verb::kFactoryReset:
      // The one way a shell's user learns that config.yaml was refused: echo
      // does not see an error at close.
      if (!sandbox.rejected.empty()) {
        throw Error(EINVAL,
                    fmt::format("{}: config.yaml.rejected is there ({}); mend "
                                "config.yaml, or rm config.yaml.rejected",
                                what, sandbox.rejected_reason));
      }
      if (verb != Verb::kStart && state == State::kSaved) {
        refuse("start it first, or write kill to drop its memory");
      }
      return;
    case Verb::kStop:
    case Verb::kRevert:
      if (state == State::kSaved) {
        refuse("start it first, or write kill to drop its memory");
      }
      return;
    case Verb::kSave:
      if (!sandbox.secrets.empty()) {
        throw Error(EPERM, fmt::format("{}: it holds secrets, which would be "
                                       "saved with its memory; rm those in "
                                       "its secrets first",
                                       what));
      }
      [[fallthrough]];
    case Verb::kPause:
    case Verb::kReset:
      if (!IsOn(state)) refuse("start it first");
      return;
    case Verb::kResume:
      if (!IsOn(state)) refuse("write start");
      return;
    case Verb::kDestroy:
      if (!IsOff(state)) refuse("write stop or kill first");
      return;
    case Verb::kKill:
      return;
  }
}

bool Actions::Overtakes(Verb verb, const Action& current) {
  if (verb == Verb::kKill) return true;
  return (verb == Verb::kStop || verb == Verb::kPause || verb == Verb::kSave ||
          verb == Verb::kReset || verb == Verb::kFactoryReset ||
          verb == Verb::kRevert) &&
         current.verb == Verb::kStart && current.waiting;
}

void Actions::Act(const std::string& uuid, Verb verb, bool wait,
                  Reply<Done> reply, const std::string& argument) {
  std::vector<Reply<Done>> overtaken;
  std::string told;
  ActionPtr action;
  reply.Guard([&] {
    const SandboxPtr known = core_.catalog.Get(uuid);
    const std::string what =
        fmt::format("Cannot {} '{}'", VerbName(verb),
                    known == nullptr ? "the sandbox" : known->name);
    const SandboxPtr sandbox = core_.Reachable(uuid, what);
    if (sandbox->trashed) {
      throw Error(EPERM, what + ": it is in the trash; mv it out first");
    }
    MutexLock lock(mutex_);
    const auto found = current_.find(uuid);
    const ActionPtr current = found == current_.end() ? nullptr : found->second;
    if (current != nullptr && current->verb == verb &&
        current->argument == argument) {
      if (wait) {
        current->askers.push_back(reply);
      } else {
        told = "joined";
      }
      return;
    }
    if (current == nullptr) {
      if (Holds(verb, *sandbox)) {
        told = "holds";
        return;
      }
      CheckState(verb, *sandbox, what);
    } else if (!Overtakes(verb, *current)) {
      throw Error(EBUSY, fmt::format("{}: it is busy with {}; wait for that, "
                                     "or write kill",
                                     what, VerbName(current->verb)));
    }
    action = std::make_shared<Action>();
    action->verb = verb;
    action->uuid = uuid;
    action->argument = argument;
    action->what = what;
    if (wait) {
      action->askers.push_back(reply);
    } else {
      told = "taken";
    }
    if (current != nullptr) {
      current->overtaken = true;
      overtaken.swap(current->askers);
      action->before = current;
    }
    current_[uuid] = action;
  });
  if (!told.empty()) reply.Ok();
  for (const auto& asker : overtaken) {
    asker.Fail(
        Error(ECANCELED, fmt::format("{}: {} overtook it", action->before->what,
                                     VerbName(verb))));
  }
  if (action == nullptr) return;
  core_.catalog.WakeAll();
  core_.workers.Run([this, action] { Run(action); });
}

void Actions::Run(const ActionPtr& action) {
  std::optional<Error> failure;
  try {
    Perform(*action);
  } catch (...) {
    failure = CurrentError().Of(action->what);
  }
  action->before.reset();
  std::vector<Reply<Done>> askers;
  bool still = false;
  {
    MutexLock lock(mutex_);
    const auto found = current_.find(action->uuid);
    still = found != current_.end() && found->second == action;
    if (still) current_.erase(found);
    askers.swap(action->askers);
  }
  action->ended = true;
  if (still) {
    core_.catalog.Change(action->uuid, [](Catalog::Overlay& overlay) {
      overlay.doing.reset();
      overlay.progress.clear();
    });
    // Who looks at a sandbox saw it in the middle of what did not become of it.
    if (failure) core_.ReadSoon(action->uuid);
  }
  core_.catalog.WakeAll();
  if (stopping_) return;
  // An overtaken action's end is no news: its overtaker's is. Told first, so
  // that it does not take away what the asker's next write leaves in `error`.
  if (still) {
    core_.catalog.ReportEnd(action->uuid, failure ? &*failure : nullptr);
  }
  for (const auto& asker : askers) {
    if (failure) {
      asker.Fail(*failure);
    } else {
      asker.Ok();
    }
  }
}

void Actions::Doing(const Action& action, std::optional<State> state,
                    std::string progress) {
  if (action.overtaken) return;
  core_.catalog.Change(action.uuid, [&](Catalog::Overlay& overlay) {
    overlay.doing = state;
    overlay.progress = std::move(progress);
  });
}

void Actions::MustGoOn(const Action& action) const {
  if (action.overtaken || stopping_) {
    throw Error(ECANCELED, action.what + ": it was overtaken");
  }
}

void Actions::Await(Action& action,
                    const std::function<bool(const Sandbox*)>& done,
                    Clock::time_point until, const std::string& late) {
  Connection::EndUse();
  // Asked first: to `done`, what cannot be reached may look like an end.
  const auto lost = [](const Sandbox* sandbox) {
    return sandbox != nullptr && sandbox->state == State::kUnreachable;
  };
  if (core_.catalog.WaitUntil(
          action.uuid,
          [&](const Sandbox* sandbox) {
            return action.overtaken || stopping_ || lost(sandbox) ||
                   done(sandbox);
          },
          until, stopping_)) {
    MustGoOn(action);
    const SandboxPtr now = core_.catalog.Get(action.uuid);
    if (lost(now.get()) || !done(now.get())) {
      throw Error(EHOSTDOWN, action.what +
                                 ": the connection to libvirt was lost "
                                 "meanwhile; see .host/connection");
    }
    return;
  }
  MustGoOn(action);
  throw Error(ETIMEDOUT, fmt::format("{}: {}", action.what, late));
}

bool Actions::EndedMeanwhile(const std::string& uuid, const Error& error) {
  if (error.Errno() == EHOSTDOWN) return false;
  core_.Read(uuid);
  // libvirt may not have taken it for off yet.
  return core_.catalog.IsOff(uuid) ||
         error.Sentence().find("unexpectedly quit") != std::string::npos;
}

void Actions::Perform(Action& action) {
  const std::string& uuid = action.uuid;
  auto simple = [&](int (*call)(virDomainPtr)) {
    const DomainPtr domain = core_.Domain(uuid, action.what);
    if (call(domain.get()) >= 0) {
      core_.ReadDone(uuid);
      return;
    }
    const Error error = LibvirtError(action.what);
    if (!EndedMeanwhile(uuid, error)) throw error;
    const SandboxPtr now = core_.catalog.Get(uuid);
    throw Error(ECANCELED,
                fmt::format("{}: the guest ended meanwhile ({})", action.what,
                            now == nullptr ? "gone" : now->reason));
  };
  switch (action.verb) {
    case Verb::kStart:
      return Start(action);
    case Verb::kStop:
      return StopGuest(action);
    case Verb::kKill:
      return Kill(action);
    case Verb::kRestart:
      if (!IsOff(core_.Reachable(uuid, action.what)->state)) {
        StopGuest(action);
      }
      return Start(action);
    case Verb::kPause:
      return simple([](virDomainPtr d) { return virDomainSuspend(d); });
    case Verb::kResume:
      return simple([](virDomainPtr d) { return virDomainResume(d); });
    case Verb::kSave: {
      Doing(action, std::nullopt, "saving its memory");
      const Turns::Turn mounts = provision_.mounts().Release(uuid, action.what);
      simple([](virDomainPtr d) {
        EndPull(d);
        return virDomainManagedSave(d, 0);
      });
      // Whoever starts it, and whatever became of its template.
      return Warm::Part(core_.Domain(uuid, action.what).get());
    }
    case Verb::kReset:
      return simple([](virDomainPtr d) { return virDomainReset(d, 0); });
    case Verb::kFactoryReset:
      return FactoryReset(action);
    case Verb::kRevert:
      return Revert(action);
    case Verb::kDestroy: {
      // The same as rmdir, answered by the same code.
      Doing(action, std::nullopt, "removing it");
      std::optional<Error> failure;
      std::atomic<bool> answered = false;
      provision_.Remove({}, uuid, Reply<Done>([&](Outcome<Done> outcome) {
                          if (auto* error = std::get_if<Error>(&outcome)) {
                            failure = std::move(*error);
                          }
                          answered = true;
                          core_.catalog.WakeAll();
                        }));
      std::atomic<bool> never = false;
      while (!core_.catalog.WaitUntil(
          uuid, [&](const Sandbox*) { return answered.load(); },
          Clock::now() + 1s, never)) {
      }
      if (failure) throw *failure;
      return;
    }
  }
}

void Actions::WaitFor(const std::string& uuid, State state, Reply<Done> reply) {
  core_.workers.Run([this, uuid, state, reply] {
    reply.Guard([&] {
      auto cancelled = std::make_shared<std::atomic<bool>>(false);
      reply.OnCancel([this, cancelled] {
        *cancelled = true;
        core_.catalog.WakeAll();
      });
      bool there = false;
      core_.catalog.WaitUntil(
          uuid,
          [&](const Sandbox* now) {
            there = now != nullptr && now->state == state;
            return there || now == nullptr || *cancelled || stopping_;
          },
          Clock::now() + 24h * 365, stopping_);
      if (!there) {
        throw Error(ENOENT, "Cannot wait for the sandbox: it is gone");
      }
      reply.Ok();
    });
  });
}

std::string Actions::UnderWay() const {
  MutexLock lock(mutex_);
  for (const auto& [uuid, action] : current_) {
    if (action->waiting) continue;
    const SandboxPtr sandbox = core_.catalog.Get(uuid);
    return fmt::format("{} of '{}'", VerbName(action->verb),
                       sandbox == nullptr ? uuid : sandbox->name);
  }
  return {};
}

void Actions::Wake(const std::string& uuid, const Reply<Done>& reply,
                   int tries) {
  const SandboxPtr now = core_.catalog.Get(uuid);
  // One that is being saved is paused, too.
  if (now == nullptr || IsOff(now->state) ||
      (now->state == State::kPaused && now->progress.empty())) {
    reply.Fail(Error(EHOSTDOWN,
                     fmt::format("Cannot wake '{}': it is not saved any more",
                                 core_.NameOf(uuid))));
    return;
  }
  const Reply<Done> started([=, this](Outcome<Done> outcome) {
    const auto* error = std::get_if<Error>(&outcome);
    if (error == nullptr || error->Errno() != EBUSY || tries == kWakeTries ||
        reply.Answered()) {
      reply.Give(std::move(outcome));
      return;
    }
    core_.timer.After(kWakePause, [=, this] {
      core_.workers.Run([=, this] { Wake(uuid, reply, tries + 1); });
    });
  });
  reply.OnCancel(started.Canceller());
  Act(uuid, Verb::kStart, true, started);
}

void Actions::Stop() {
  stopping_ = true;
  {
    MutexLock lock(mutex_);
    for (const auto& [uuid, action] : current_) action->overtaken = true;
  }
  core_.catalog.WakeAll();
}

}  // namespace sbxfs
