#include "backend/guest_freeze.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>

#include "backend/libvirt_error.h"
#include "backend/util/log.h"
#include "backend/util/text.h"
#include "backend/xml.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
using SystemClock = std::chrono::system_clock;

constexpr char kFrozenUri[] = "https://sbxfs.org/xmlns/frozen/1";
constexpr char kFrozenPrefix[] = "sbxfs-frozen";
constexpr int kThawSeconds = 2;
// Nobody who lives keeps a guest frozen for so long.
constexpr auto kLongestFreeze = 20s;

// Null: takes it away.
void Note(virDomainPtr domain, const char* xml) {
  virDomainSetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, xml, kFrozenPrefix,
                       kFrozenUri, VIR_DOMAIN_AFFECT_LIVE);
}

}  // namespace

GuestFreeze::GuestFreeze(virDomainPtr domain) : domain_(domain) {
  Note(domain, fmt::format("<frozen since='{}'/>",
                           SystemClock::to_time_t(SystemClock::now()))
                   .c_str());
  // libvirt's own patience has no end.
  virDomainAgentSetResponseTimeout(domain, kThawSeconds, 0);
  holds_ = virDomainFSFreeze(domain, nullptr, 0, 0) >= 0;
  virResetLastError();
}

GuestFreeze::~GuestFreeze() {
  // An answer that came too late may have left it frozen.
  virDomainFSThaw(domain_, nullptr, 0, 0);
  virDomainAgentSetResponseTimeout(
      domain_, VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_DEFAULT, 0);
  Note(domain_, nullptr);
  virResetLastError();
}

std::optional<SystemClock::time_point> FrozenSince(
    std::string_view domain_xml) {
  if (domain_xml.find(kFrozenUri) == std::string_view::npos) return {};
  const auto since = ParseNumber(
      XmlText(domain_xml, "/domain/metadata/*[local-name()='frozen']/@since"));
  // Anyone can write one.
  if (!since || *since > 1ULL << 40) return SystemClock::time_point();
  return SystemClock::from_time_t(static_cast<time_t>(*since));
}

void Thaw::Look(const std::string& uuid) {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  if (sandbox == nullptr || IsOff(sandbox->state) ||
      !FrozenSince(sandbox->domain_xml.Text())) {
    return;
  }
  {
    MutexLock lock(mutex_);
    if (!watched_.insert(uuid).second) return;
  }
  core_.timer.After(kLongestFreeze, [this, uuid] {
    core_.workers.Run([this, uuid] { Try(uuid); });
  });
}

void Thaw::Try(const std::string& uuid) {
  {
    MutexLock lock(mutex_);
    watched_.erase(uuid);
  }
  try {
    core_.Read(uuid);
    const SandboxPtr sandbox = core_.catalog.Get(uuid);
    const auto since =
        sandbox ? FrozenSince(sandbox->domain_xml.Text()) : std::nullopt;
    if (!since || (SystemClock::now() > *since &&
                   SystemClock::now() - *since < kLongestFreeze)) {
      return;
    }
    constexpr char kWhat[] = "Cannot thaw the guest";
    const DomainPtr domain = core_.Domain(uuid, kWhat);
    spdlog::warn("'{}' was left with its file systems frozen; thawing them",
                 sandbox->name);
    if (virDomainFSThaw(domain.get(), nullptr, 0, 0) < 0) ThrowLibvirt(kWhat);
    Note(domain.get(), nullptr);
    core_.Read(uuid);
  } catch (const Error& error) {
    spdlog::debug("{}", error.Sentence());
    core_.ReadSoon(uuid);
  }
}

}  // namespace sbxfs
