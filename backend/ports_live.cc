// Ports' part for what runs, or was saved while it ran: QEMU is told through
// its monitor, since libvirt has no call for it.
#include <fmt/format.h>
#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <functional>
#include <iterator>
#include <optional>
#include <utility>

#include "backend/libvirt_error.h"
#include "backend/ports.h"
#include "backend/user_network.h"
#include "backend/util/text.h"
#include "backend/util/undo.h"
#include "backend/warm_xml.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
using Forwards = std::vector<Forward>;

std::string Monitor(virDomainPtr domain, const std::string& command,
                    std::string_view what) {
  char* answer = nullptr;
  if (virDomainQemuMonitorCommand(domain, command.c_str(), &answer,
                                  VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP) < 0) {
    ThrowLibvirt(what);
  }
  return TakeString(answer);
}

Forwards Running(virDomainPtr domain, std::string_view what) {
  return ParseUsernet(Monitor(domain, "info usernet", what), kNetdev);
}

bool Has(const Forwards& forwards, const Forward& one) {
  return std::find(forwards.begin(), forwards.end(), one) != forwards.end();
}

// Success is silent, and the command's status says nothing.
void Open(virDomainPtr domain, const Forward& forward, std::string_view what) {
  const std::string answer = Monitor(
      domain, fmt::format("hostfwd_add {} {}", kNetdev, FormatHostfwd(forward)),
      what);
  if (Trim(answer).empty()) return;
  // Another mount may have been quicker.
  if (Has(Running(domain, what), forward)) return;
  throw Error(EADDRINUSE,
              fmt::format("{}: QEMU cannot listen on {} ({}); choose another",
                          what, HostSide(forward), Trim(answer)));
}

void Close(virDomainPtr domain, const Forward& forward, std::string_view what) {
  const std::string answer =
      Monitor(domain,
              fmt::format("hostfwd_remove {} {}:{}:{}", kNetdev,
                          forward.udp ? "udp" : "tcp", forward.host_ip,
                          forward.host_port),
              what);
  for (const char* good : {"removed", "not found"}) {
    if (answer.find(good) != std::string::npos) return;
  }
  throw Error(EIO, fmt::format("{}: QEMU does not close {} ({})", what,
                               HostSide(forward), Trim(answer)));
}

// From `there` to `wanted`; an Undo step for each step.
void Move(virDomainPtr domain, const Forwards& there, const Forwards& wanted,
          std::string_view what, Undo& undo) {
  Forwards add;
  Forwards remove;
  std::set_difference(wanted.begin(), wanted.end(), there.begin(), there.end(),
                      std::back_inserter(add));
  std::set_difference(there.begin(), there.end(), wanted.begin(), wanted.end(),
                      std::back_inserter(remove));
  auto in_the_way = [&](const Forward& old) {
    return std::any_of(add.begin(), add.end(),
                       [&](const auto& one) { return Collide(old, one); });
  };
  auto close = [&](const Forward& one) {
    Close(domain, one, what);
    undo.Add([=] { Open(domain, one, what); });
  };
  // First what is in the way, then the new, then what is left: whoever
  // connects meanwhile finds as much as can be there.
  for (const Forward& one : remove) {
    if (in_the_way(one)) close(one);
  }
  for (const Forward& one : add) {
    Open(domain, one, what);
    undo.Add([=] { Close(domain, one, what); });
  }
  for (const Forward& one : remove) {
    if (!in_the_way(one)) close(one);
  }
}

void Note(virDomainPtr domain, const Forwards& forwards,
          std::string_view what) {
  const std::string xml = TakeString(virDomainGetXMLDesc(domain, 0));
  if (xml.empty() ||
      virDomainSetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT,
                           PortsNote(xml, forwards).c_str(), kPortsPrefix,
                           kPortsUri, VIR_DOMAIN_AFFECT_LIVE) < 0) {
    ThrowLibvirt(what);
  }
}

// What a saved guest will be started with is in its own image.
void ChangeSaved(virDomainPtr domain, const Forwards& wanted,
                 std::string_view what) {
  const std::string xml = TakeString(
      virDomainManagedSaveGetXMLDesc(domain, VIR_DOMAIN_SAVE_IMAGE_XML_SECURE));
  if (xml.empty()) ThrowLibvirt(what);
  const std::string fresh = WithOwnMemory(WithForwards(xml, wanted));
  if (virDomainManagedSaveDefineXML(domain, fresh.c_str(), 0) < 0) {
    ThrowLibvirt(what);
  }
}

// The definition, and with it every start from now on.
void ChangeDefinition(virDomainPtr domain, const Forwards& wanted,
                      std::string_view what) {
  const std::string xml = TakeString(virDomainGetXMLDesc(
      domain, VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE));
  if (xml.empty()) ThrowLibvirt(what);
  if (ParseDomain(xml).forwards == wanted) return;
  const DomainPtr defined(virDomainDefineXML(
      virDomainGetConnect(domain), WithForwards(xml, wanted).c_str()));
  if (defined == nullptr) ThrowLibvirt(what);
}

}  // namespace

void Ports::Change(const std::string& uuid, const Forwards& wanted,
                   std::string_view what) {
  if (core_.test_driver) return;  // it keeps no command line
  const DomainPtr domain = core_.Domain(uuid, what);
  Undo undo;
  if (virDomainIsActive(domain.get()) == 1) {
    const Forwards there = Running(domain.get(), what);
    if (there != wanted) {
      Move(domain.get(), there, wanted, what, undo);
      undo.Add([&domain, there, what] { Note(domain.get(), there, what); });
    }
    Note(domain.get(), wanted, what);
  } else if (virDomainHasManagedSaveImage(domain.get(), 0) == 1) {
    ChangeSaved(domain.get(), wanted, what);
  }
  ChangeDefinition(domain.get(), wanted, what);
  undo.Keep();
}

// What is to be followed, as a text; empty when there is nothing.
std::string Ports::Wish(const std::string& uuid, Forwards& wanted) {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  const auto facts = core_.Facts(uuid);
  if (sandbox == nullptr || !facts || !facts->metadata || core_.test_driver ||
      (sandbox->state != State::kRunning && sandbox->state != State::kPaused)) {
    return "";
  }
  const Metadata& meta = *facts->metadata;
  // Another ssh port than the sandbox's own waits for the next start.
  wanted = ForwardsOf(core_.SpecOf(meta), meta.ssh_port);
  if (facts->forwards == wanted) return "";
  std::string wish;
  for (const Forward& one : wanted) wish += FormatHostfwd(one) + "\n";
  wish += '\n';
  for (const Forward& one : facts->forwards) wish += FormatHostfwd(one) + "\n";
  return wish;
}

void Ports::Look(const std::string& uuid) {
  std::string wish;
  try {
    Forwards wanted;
    wish = Wish(uuid, wanted);
  } catch (const Error&) {
    return;  // `pending` tells
  }
  {
    MutexLock lock(mutex_);
    if (wish.empty()) {
      followed_.erase(uuid);
      return;
    }
    if (std::exchange(followed_[uuid].wish, wish) == wish) return;
  }
  // Another mount may be in the middle of just this.
  FollowLater(uuid, wish, 2s);
}

void Ports::FollowLater(const std::string& uuid, const std::string& wish,
                        std::chrono::milliseconds delay) {
  core_.timer.After(delay, [this, uuid, wish] {
    core_.workers.Run([this, uuid, wish] { Follow(uuid, wish); });
  });
}

void Ports::Follow(const std::string& uuid, const std::string& wish) {
  constexpr char kWhat[] = "Cannot forward the guest's ports";
  std::optional<Error> failure;
  try {
    const Turns::Turn turn = core_.Turn(uuid, kWhat);
    core_.Read(uuid);
    Forwards wanted;
    if (Wish(uuid, wanted) == wish) {
      Check(uuid, wanted, Running(core_.Domain(uuid, kWhat).get(), kWhat),
            kWhat);
      Change(uuid, wanted, kWhat);
      core_.Read(uuid);
    }
  } catch (...) {
    failure = CurrentError();
  }
  bool news = false;
  {
    MutexLock lock(mutex_);
    const auto found = followed_.find(uuid);
    if (found == followed_.end() || found->second.wish != wish) return;
    if (!failure) {
      followed_.erase(found);
    } else {
      const std::string& sentence = failure->Sentence();
      news = std::exchange(found->second.failure, sentence) != sentence;
    }
  }
  if (news) core_.catalog.ReportEnd(uuid, &*failure);
  if (failure) {
    FollowLater(uuid, wish, 15s);
  } else {
    Look(uuid);  // it may have changed meanwhile
  }
}

}  // namespace sbxfs
