#ifndef SBXFS_BACKEND_IMAGE_IMAGE_FILE_H_
#define SBXFS_BACKEND_IMAGE_IMAGE_FILE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace sbxfs {

// Random access to an image wherever it is: up to `size` bytes from `offset`,
// fewer at the end alone.
using ReadAt = std::function<std::string(uint64_t offset, size_t size)>;

struct ImageFacts {
  std::string format;         // "qcow2", "raw" or "iso"
  uint64_t virtual_size = 0;  // bytes, of the disk in it
  bool boots_bios = false;    // boot code in its first sector
  bool boots_uefi = false;    // an EFI system partition
};

// What `file_size` bytes of image are. Throws Error(EINVAL) for what is no
// disk image (no qcow2, and no boot signature or partition table), a qcow2
// with a backing or data file (its path would be opened by the hypervisor),
// encryption, or clusters beyond its end: a cut image opens and reads zeros.
// `name` stands in the sentence. The image is hostile input.
[[nodiscard]] ImageFacts InspectImage(const std::string& name,
                                      uint64_t file_size, const ReadAt& read);

// By the first 4 KiB of an image, the format that it has to be converted from
// before QEMU can have a disk stand on it, as libvirt and qemu-img call it:
// vmdk, vdi, vpc, qed or qcow; empty for all others.
[[nodiscard]] std::string FormatToConvert(std::string_view head);
// Throws Error(EINVAL) when qemu-img, converting such an image, would open
// other files: those that the image names.
void CheckStandsAlone(const std::string& name, uint64_t file_size,
                      const ReadAt& read);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_IMAGE_IMAGE_FILE_H_
