#include "backend/libvirt_error.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "backend/util/log.h"

namespace sbxfs {
namespace {

// The errno says what the caller can do next: EBUSY, change the state first;
// ETIMEDOUT, try again; EHOSTDOWN, wait for the connection.
int ErrnoOf(const virError& error) {
  // A dead connection fails with a system or internal error of the RPC layer.
  if (error.domain == VIR_FROM_RPC || error.domain == VIR_FROM_REMOTE) {
    return EHOSTDOWN;
  }
  switch (error.code) {
    case VIR_ERR_NO_DOMAIN:
    case VIR_ERR_NO_STORAGE_VOL:
    case VIR_ERR_NO_STORAGE_POOL:
    case VIR_ERR_NO_DOMAIN_METADATA:
      return ENOENT;
    case VIR_ERR_DOM_EXIST:
    case VIR_ERR_STORAGE_VOL_EXIST:
      return EEXIST;
    case VIR_ERR_OPERATION_INVALID:
    case VIR_ERR_RESOURCE_BUSY:
      return EBUSY;
    case VIR_ERR_NO_SUPPORT:
    case VIR_ERR_CONFIG_UNSUPPORTED:
    case VIR_ERR_ARGUMENT_UNSUPPORTED:
    case VIR_ERR_OPERATION_UNSUPPORTED:
      return EOPNOTSUPP;
    case VIR_ERR_INVALID_ARG:
    case VIR_ERR_XML_ERROR:
    case VIR_ERR_XML_DETAIL:
      return EINVAL;
    case VIR_ERR_AUTH_FAILED:
    case VIR_ERR_AUTH_CANCELLED:
    case VIR_ERR_ACCESS_DENIED:
    case VIR_ERR_OPERATION_DENIED:
      return EACCES;
    case VIR_ERR_OPERATION_TIMEOUT:
    case VIR_ERR_AGENT_UNRESPONSIVE:
      return ETIMEDOUT;
    case VIR_ERR_NO_MEMORY:
      return ENOMEM;
    case VIR_ERR_SYSTEM_ERROR:
      // virReportSystemError leaves the errno here, also over the wire.
      switch (error.int1) {
        case ENOSPC:
        case EDQUOT:
        case EACCES:
        case EFBIG:
        case ENOENT:
          return error.int1;
        default:
          return EIO;
      }
    default:
      break;
  }
  // What qemu-img and QEMU said is words.
  return error.message != nullptr &&
                 std::strstr(error.message, std::strerror(ENOSPC)) != nullptr
             ? ENOSPC
             : EIO;
}

// Debian 12's.
constexpr unsigned long kOldest = 9000000;
std::atomic<unsigned long> old_libvirt = 0;

// QEMU ended in the middle of a call: libvirt has no code for it.
bool GuestEnded(std::string_view message) {
  for (const char* words :
       {"Unable to read from monitor", "Unable to write to monitor",
        "End of file from qemu monitor", "domain is no longer running",
        "guest unexpectedly quit"}) {
    if (message.find(words) != std::string_view::npos) return true;
  }
  return false;
}

}  // namespace

Error LibvirtError(std::string_view what) {
  const virError* last = virGetLastError();
  if (last == nullptr || last->code == VIR_ERR_OK) {
    // A call that another thread had sent, on a connection that died.
    return Error(EHOSTDOWN, fmt::format("{}: the connection to libvirt is lost "
                                        "(it gave no reason); see "
                                        ".host/connection",
                                        what));
  }
  std::string message = last->message == nullptr ? "" : last->message;
  // One line: sentences are lines of the error files.
  for (char& c : message) {
    if (c == '\n') c = ' ';
  }
  while (!message.empty() && message.back() == ' ') message.pop_back();
  const int error = ErrnoOf(*last);
  if (error == EHOSTDOWN) {
    return Error(error, fmt::format("{}: the connection to libvirt is lost "
                                    "({}); see .host/connection",
                                    what, message));
  }
  if (GuestEnded(message)) {
    return Error(EBUSY, fmt::format("{}: the guest ended meanwhile ({}); see "
                                    "its status and reason",
                                    what, message));
  }
  // It does not say whose, nor from where.
  if (message.find("without qemu-img") != std::string::npos ||
      message.find("unable to find qemu-img") != std::string::npos) {
    return Error(EIO,
                 fmt::format("{}: libvirt makes disks with qemu-img, which the "
                             "hypervisor lacks; install it there (Debian's "
                             "qemu-utils)",
                             what));
  }
  // A libvirtd that was killed in the middle of a start may hold it for ever.
  if (message.find("state change lock") != std::string::npos) {
    message +=
        "; try again, and where that does not help restart libvirtd, which its "
        "guests survive";
  }
  if (const unsigned long old = old_libvirt;
      old != 0 && (error == EOPNOTSUPP || last->code == VIR_ERR_XML_ERROR ||
                   last->code == VIR_ERR_XML_DETAIL)) {
    message += fmt::format(
        "; libvirt {} is older than the {} that sbxfs is made for: upgrade it",
        LibvirtVersion(old), LibvirtVersion(kOldest));
  }
  return Error(error, fmt::format("{}: {}", what, message));
}

std::string LibvirtVersion(unsigned long number) {
  return fmt::format("{}.{}.{}", number / 1000000, number / 1000 % 1000,
                     number % 1000);
}

std::string NoteLibvirtVersion(unsigned long number) {
  if (number >= kOldest) return "";
  old_libvirt = number;
  return fmt::format(
      "note: libvirt {} is older than the {} that sbxfs is made for; what it "
      "lacks fails with its own words\n",
      LibvirtVersion(number), LibvirtVersion(kOldest));
}

void ThrowLibvirt(std::string_view what) { throw LibvirtError(what); }

bool LastLibvirtErrorIs(int code) {
  const virError* last = virGetLastError();
  return last != nullptr && last->code == code;
}

void SilenceLibvirt() {
  // What libvirt logs to standard error is the half of what its errors say.
  setenv("LIBVIRT_LOG_OUTPUTS", "4:file:/dev/null", 0);
  virSetErrorFunc(nullptr, [](void*, virErrorPtr error) {
    spdlog::debug("libvirt: {}",
                  error->message == nullptr ? "" : error->message);
  });
}

}  // namespace sbxfs
