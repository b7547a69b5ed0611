#ifndef SBXFS_BACKEND_USER_NETWORK_H_
#define SBXFS_BACKEND_USER_NETWORK_H_

#include <string>
#include <string_view>
#include <vector>

#include "backend/forwards.h"
#include "backend/xml.h"

namespace sbxfs {

// The user-mode network with its forwards, in a domain's XML. It is on QEMU's
// command line, so that the forwards are there whoever starts the domain:
// libvirt 9.0 as Debian builds it has no forwards of its own.

inline constexpr char kQemuUri[] = "http://libvirt.org/schemas/domain/qemu/1.0";

// The id of the user-mode network's netdev in QEMU.
inline constexpr char kNetdev[] = "sbxnet0";

// Puts it on a <domain>'s command line. QEMU drops all that the guest begins
// where it is to be `isolated`, and DNS.
void AddUserNetwork(xmlNode* domain, const std::string& mac, bool isolated,
                    const std::vector<Forward>& forwards);

// Sorted: what a running guest forwards, what another will at its start.
[[nodiscard]] std::vector<Forward> ReadForwards(const xmlNode* domain);
// What our own NIC's "-device" argument names as its address, or empty.
[[nodiscard]] std::string UserNetworkMac(const xmlNode* domain);

// A domain's XML (inactive, or a save image's) with other forwards on its
// command line. Throws Error(EIO) for one without our network.
[[nodiscard]] std::string WithForwards(std::string_view xml,
                                       const std::vector<Forward>& forwards);

// The namespace and prefix of a running guest's note of the forwards that were
// changed since QEMU's start.
inline constexpr char kPortsUri[] = "https://sbxfs.org/xmlns/ports/1";
inline constexpr char kPortsPrefix[] = "sbxfs-ports";
// The note for virDomainSetMetadata, for the guest whose live XML this is. It
// counts for that QEMU alone: libvirt carries it into a restored guest, which
// begins with its command line again.
[[nodiscard]] std::string PortsNote(std::string_view xml,
                                    const std::vector<Forward>& forwards);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_USER_NETWORK_H_
