// A guest's memory in a file: the head that libvirt writes, and QEMU's stream.
#include <algorithm>

#include "backend/memory_stream.h"
#include "backend/save_image.h"
#include "tests/fuzz/fuzz.h"

namespace sbxfs::fuzz {
namespace {

void CheckHead(std::string head) {
  std::string xml;
  (void)Try([&] { (void)IsCompressed(head); });
  (void)Try([&] { head.resize(std::min(head.size(), SaveHeadSize(head))); });
  if (!Try([&] { xml = SavedXml(head); })) return;
  Check(SaveHeadSize(head) >= kSaveHeader + xml.size(),
        "a head has room for its XML");
  for (const std::string& other : {xml, std::string("<domain/>")}) {
    (void)Try([&] {
      const std::string fresh = WithSavedXml(head, other);
      Check(fresh.size() == SaveHeadSize(head), "a head is as long as before");
      CheckSame(SavedXml(fresh), other, "a head's new XML");
      CheckSame(WithSavedXml(fresh, other), fresh, "the same XML again");
    });
  }
  CheckSame(SavedXml(MakeSaveHead(xml)), xml, "a new head's XML");
}

void CheckStream(const std::string& stream) {
  SplitMemory split;
  if (!Try([&] { split = SplitStream(stream); })) return;
  Check(split.pages.size() == (split.size + kGuestPage - 1) / kGuestPage,
        "all pages are known");
  for (const uint64_t page : split.pages) {
    Check(page == 0 ||
              (page <= stream.size() && kGuestPage <= stream.size() - page),
          "a page is in the stream");
  }
  constexpr char kMac[] = "52:54:00:00:00:01";
  (void)Try([&] {
    const std::string other = WithMac(split.rest, kMac, "52:54:00:00:00:02");
    Check(other.size() == split.rest.size(), "a MAC address is as long");
  });
}

}  // namespace
}  // namespace sbxfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(sbxfs::fuzz::Text(data, size));
  sbxfs::fuzz::CheckHead(bytes);
  sbxfs::fuzz::CheckStream(bytes);
  return 0;
}
