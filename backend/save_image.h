#ifndef SBXFS_BACKEND_SAVE_IMAGE_H_
#define SBXFS_BACKEND_SAVE_IMAGE_H_

#include <cstdint>
#include <string>
#include <string_view>

// The head of libvirt's save images (a guest's memory in a file): a header of
// 92 bytes, the domain's XML, a cookie. Little-endian, as libvirt writes it on
// the machines we know. Source: src/qemu/qemu_saveimage.h of libvirt 9.0. Pure
// functions, which throw Error(EIO) for what is no such image.

namespace sbxfs {

// Bytes of the header.
inline constexpr uint64_t kSaveHeader = 92;

// Bytes of the whole head, from its header.
[[nodiscard]] uint64_t SaveHeadSize(std::string_view header);

// The XML in a whole head.
[[nodiscard]] std::string SavedXml(std::string_view head);

// Whether what follows the head is compressed, as qemu.conf may have it.
[[nodiscard]] bool IsCompressed(std::string_view header);

// A head of its own, for a guest that ran.
[[nodiscard]] std::string MakeSaveHead(std::string_view xml);

// The head with another XML, as long as before: libvirt itself refuses to
// change a domain's name there. Error(EMSGSIZE) when it does not fit.
[[nodiscard]] std::string WithSavedXml(std::string_view head,
                                       std::string_view xml);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SAVE_IMAGE_H_
