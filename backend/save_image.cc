#include "backend/save_image.h"

#include <endian.h>

#include <cerrno>
#include <cstring>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

constexpr std::string_view kSaveMagic = "LibvirtQemudSave";
// Where the words of the header are.
constexpr size_t kVersion = 16;
constexpr size_t kLength = 20;  // of XML and cookie, with what is left free
constexpr size_t kWasRunning = 24;
constexpr size_t kCompression = 28;  // 0: none
constexpr size_t kCookie = 32;  // where it begins, behind the header; 0: none

uint32_t Word(std::string_view head, size_t at) {
  uint32_t word = 0;
  std::memcpy(&word, head.data() + at, sizeof(word));
  return le32toh(word);
}

void PutWord(std::string& head, size_t at, uint32_t word) {
  word = htole32(word);
  std::memcpy(head.data() + at, &word, sizeof(word));
}

[[noreturn]] void Refuse() {
  throw Error(EIO,
              "Cannot read a guest's memory: the file is no save image of "
              "libvirt's");
}

// What lies behind the XML.
std::string_view Cookie(std::string_view head) {
  const uint32_t at = Word(head, kCookie);
  if (at == 0) return {};
  const std::string_view behind = head.substr(kSaveHeader);
  if (at >= behind.size()) Refuse();
  const size_t end = behind.find('\0', at);
  if (end == behind.npos) Refuse();
  return behind.substr(at, end - at);
}

}  // namespace

uint64_t SaveHeadSize(std::string_view header) {
  if (header.size() < kSaveHeader || !header.starts_with(kSaveMagic)) Refuse();
  return kSaveHeader + Word(header, kLength);
}

std::string SavedXml(std::string_view head) {
  if (head.size() < SaveHeadSize(head)) Refuse();
  const std::string_view behind = head.substr(kSaveHeader);
  const size_t end = behind.find('\0');
  if (end == behind.npos) Refuse();
  return std::string(behind.substr(0, end));
}

bool IsCompressed(std::string_view header) {
  if (header.size() < kSaveHeader) Refuse();
  return Word(header, kCompression) != 0;
}

std::string MakeSaveHead(std::string_view xml) {
  std::string head(kSaveMagic);
  head.resize(kSaveHeader, '\0');
  PutWord(head, kVersion, 2);
  PutWord(head, kLength, static_cast<uint32_t>(xml.size() + 1));
  PutWord(head, kWasRunning, 1);
  head.append(xml).append(1, '\0');
  return head;
}

std::string WithSavedXml(std::string_view head, std::string_view xml) {
  const uint64_t size = SaveHeadSize(head);
  if (head.size() < size) Refuse();
  const std::string_view cookie = Cookie(head);
  std::string fresh(head.substr(0, kSaveHeader));
  fresh.append(xml).append(1, '\0');
  PutWord(
      fresh, kCookie,
      cookie.empty() ? 0 : static_cast<uint32_t>(fresh.size() - kSaveHeader));
  if (!cookie.empty()) fresh.append(cookie).append(1, '\0');
  if (fresh.size() > size) {
    throw Error(EMSGSIZE,
                "Cannot change what a guest's memory is kept with: there is no "
                "room for it in the file");
  }
  fresh.resize(size, '\0');
  return fresh;
}

}  // namespace sbxfs
