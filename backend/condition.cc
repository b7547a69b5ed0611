#include "backend/condition.h"

#include <libvirt/libvirt.h>

namespace sbxfs {

Condition WhenOff(int reason, bool saved) {
  if (saved)
    return {State::kSaved, "its memory is saved; start brings it back"};
  switch (reason) {
    case VIR_DOMAIN_SHUTOFF_SHUTDOWN:
      return {State::kStopped, "the guest shut down"};
    case VIR_DOMAIN_SHUTOFF_DESTROYED:
      return {State::kStopped, "it was killed"};
    case VIR_DOMAIN_SHUTOFF_CRASHED:
      return {State::kCrashed, "the guest or its QEMU crashed"};
    case VIR_DOMAIN_SHUTOFF_FAILED:
      return {State::kStopped, "the last start failed"};
    case VIR_DOMAIN_SHUTOFF_SAVED:
      return {State::kStopped, "its saved memory was dropped"};
    case VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT:
      return {State::kStopped, "it was reverted to a snapshot"};
    default:
      return {State::kStopped, "it was not started yet"};
  }
}

Condition WhenOn(int state, int reason) {
  switch (state) {
    case VIR_DOMAIN_PAUSED:
      switch (reason) {
        case VIR_DOMAIN_PAUSED_IOERROR:
          return {State::kPaused,
                  "a disk write failed: the pool is full, or its disk broken"};
        case VIR_DOMAIN_PAUSED_CRASHED:
          return {State::kCrashed, "the guest panicked"};
        default:
          return {State::kPaused, "it was paused"};
      }
    case VIR_DOMAIN_PMSUSPENDED:
      return {State::kPaused, "the guest put itself to sleep"};
    case VIR_DOMAIN_SHUTDOWN:
      return {State::kStopping, "the guest is shutting down"};
    case VIR_DOMAIN_CRASHED:
      return {State::kCrashed, "the guest or its QEMU crashed"};
    default:
      switch (reason) {
        case VIR_DOMAIN_RUNNING_RESTORED:
          return {State::kRunning, "it was restored from its saved memory"};
        case VIR_DOMAIN_RUNNING_UNPAUSED:
          return {State::kRunning, "it was resumed"};
        case VIR_DOMAIN_RUNNING_MIGRATED:
          return {State::kRunning, "it came from another hypervisor"};
        default:
          return {State::kRunning, "it was started"};
      }
  }
}

}  // namespace sbxfs
