#include "backend/guest_clock.h"

#include <chrono>

#include "backend/libvirt_error.h"
#include "backend/snapshots.h"
#include "backend/util/log.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// libvirt opens the agent's channel anew at a restore, and QEMU tells a moment
// later whether somebody listens. A guest that boots gets its agent later than
// that, and its time from the clock of the machine.
constexpr auto kPause = 250ms;
constexpr int kRounds = 20;

}  // namespace

void GuestClock::Try(const std::string& uuid, int round) {
  if (core_.test_driver || round >= kRounds) return;
  core_.workers.Run([this, uuid, round] {
    try {
      const DomainPtr domain = core_.Domain(uuid, "Cannot set the clock");
      const std::string xml = TakeString(virDomainGetXMLDesc(domain.get(), 0));
      if (!ParseDomain(xml).metadata) return;  // others' guests are theirs
      if (ParseRun(xml).becoming) return;      // its clock is set with the rest
      if (HasAgent(xml)) {
        const auto now = std::chrono::system_clock::now().time_since_epoch();
        const auto seconds =
            std::chrono::duration_cast<std::chrono::seconds>(now);
        const auto rest =
            std::chrono::duration_cast<std::chrono::nanoseconds>(now - seconds);
        if (virDomainSetTime(domain.get(), seconds.count(),
                             static_cast<unsigned>(rest.count()), 0) == 0) {
          spdlog::debug("Clock of {} set", uuid);
          return;
        }
        spdlog::debug("{}", LibvirtError("Cannot set the clock").Sentence());
      }
      if (virDomainIsActive(domain.get()) != 1) return;
    } catch (const Error& error) {
      spdlog::debug("{}", error.Sentence());
      return;
    }
    core_.timer.After(kPause, [this, uuid, round] { Try(uuid, round + 1); });
  });
}

}  // namespace sbxfs
