// Images: their headers and tables, and what packs them.
#include <cerrno>

#include "backend/guest/seed.h"
#include "backend/image/byte_source.h"
#include "backend/image/disk_layout.h"
#include "backend/image/image_file.h"
#include "backend/image/qcow2.h"
#include "backend/image/unpack.h"
#include "tests/fuzz/fuzz.h"

namespace sbxfs::fuzz {
namespace {

constexpr size_t kMostUnpacked = 4 << 20;

void CheckQcow2(const ByteSource& file) {
  (void)Try([&] {
    const Qcow2 image(file);
    (void)Try([&] { image.CheckTables(); });
    for (const uint64_t at : {uint64_t{0}, image.VirtualSize() / 2,
                              image.VirtualSize() - 1, ~uint64_t{0} - 511}) {
      (void)Try([&] {
        Check(image.Read(at, 1024).size() <= 1024, "no more than asked for");
      });
    }
  });
}

void CheckImage(const std::string& bytes) {
  const ReadAt read = [&](uint64_t offset, size_t size) {
    Check(offset <= bytes.size() && size <= bytes.size() - offset,
          "nothing is read from beyond the end");
    return bytes.substr(offset, size);
  };
  const ByteSource file{"x", bytes.size(), read};
  (void)Try([&] {
    const ImageFacts facts = InspectImage("x", bytes.size(), read);
    Check(facts.format == "qcow2" || facts.format == "raw" ||
              facts.format == "iso",
          "a format there is", facts.format);
  });
  (void)Try([&] { CheckStandsAlone("x", bytes.size(), read); });
  (void)Try([&] { (void)ReadDiskLayout(file); });
  (void)Try([&] {
    if (IsIso(file)) (void)ReadIsoLayout(file);
  });
  if (Qcow2::Is(bytes)) CheckQcow2(file);
  (void)FormatToConvert(bytes.substr(0, 4096));
}

std::string Unpacked(const std::string& bytes, size_t step, bool& good) {
  std::string all;
  good = Try([&] {
    Unpacker unpacker("x", [&](std::string_view part) {
      if (all.size() + part.size() > kMostUnpacked) {
        throw Error(EFBIG, "Cannot unpack 'x': it is long");
      }
      all += part;
    });
    for (size_t at = 0; at < bytes.size(); at += step) {
      unpacker.Add(std::string_view(bytes).substr(at, step));
    }
    unpacker.Finish();
  });
  return all;
}

}  // namespace
}  // namespace sbxfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sbxfs;
  const std::string bytes(fuzz::Text(data, size));
  fuzz::CheckImage(bytes);
  // In whatever pieces it comes.
  bool whole = false;
  bool pieces = false;
  const std::string at_once = fuzz::Unpacked(bytes, bytes.size() + 1, whole);
  const std::string in_parts = fuzz::Unpacked(bytes, 1 + size % 7, pieces);
  fuzz::Check(whole == pieces, "pieces are unpacked as the whole is");
  if (whole) fuzz::Check(at_once == in_parts, "pieces come to the whole");
  (void)HostKeyOf(bytes);
  return 0;
}
