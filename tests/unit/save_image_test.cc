#include "backend/save_image.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <functional>
#include <string>

#include "backend/snapshot_xml.h"
#include "backend/util/error.h"

namespace sbxfs {
namespace {

std::string Word(uint32_t word) {
  std::string bytes;
  for (int i = 0; i < 4; ++i) bytes += static_cast<char>(word >> (8 * i));
  return bytes;
}

// As libvirt 9.0 writes one: XML, cookie, nothing left free.
std::string Head(const std::string& xml, const std::string& cookie) {
  std::string text = xml + '\0';
  const auto at = static_cast<uint32_t>(text.size());
  if (!cookie.empty()) text += cookie + '\0';
  std::string head = "LibvirtQemudSave" + Word(2) +
                     Word(static_cast<uint32_t>(text.size())) + Word(1) +
                     Word(0) + Word(cookie.empty() ? 0 : at);
  head.resize(kSaveHeader, '\0');
  return head + text;
}

int ErrnoOf(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.Errno();
  }
  return 0;
}

TEST(SaveImageTest, AnotherXmlTakesThePlaceOfTheOld) {
  const std::string head = Head("<domain>a long one</domain>", "<cookie/>");
  EXPECT_EQ(SaveHeadSize(head), head.size());
  EXPECT_EQ(SavedXml(head), "<domain>a long one</domain>");
  const std::string fresh = WithSavedXml(head, "<domain/>");
  EXPECT_EQ(fresh.size(), head.size());
  EXPECT_EQ(SavedXml(fresh), "<domain/>");
  // The cookie is found where the header says.
  EXPECT_EQ(fresh.substr(0, 32), head.substr(0, 32));
  EXPECT_EQ(fresh.substr(32, 4), Word(10));
  EXPECT_EQ(fresh.substr(kSaveHeader + 10, 10), std::string("<cookie/>\0", 10));
  EXPECT_EQ(WithSavedXml(fresh, "<domain>a long one</domain>"), head);
  const std::string bare = Head("<domain/>", "");
  EXPECT_EQ(WithSavedXml(bare, "<domain/>"), bare);
}

TEST(SaveImageTest, RefusesWhatDoesNotFitOrIsNone) {
  const std::string head = Head("<domain/>", "<cookie/>");
  EXPECT_EQ(ErrnoOf([&] { (void)WithSavedXml(head, "<domain>x</domain>"); }),
            EMSGSIZE);
  EXPECT_EQ(ErrnoOf([&] { (void)SaveHeadSize(head.substr(0, 50)); }), EIO);
  EXPECT_EQ(ErrnoOf([&] { (void)SaveHeadSize(std::string(200, 'x')); }), EIO);
  EXPECT_EQ(ErrnoOf([&] { (void)SavedXml(head.substr(0, 95)); }), EIO);
  std::string lies = head;
  lies.replace(32, 4, Word(100000));  // the cookie is beyond the end
  EXPECT_EQ(ErrnoOf([&] { (void)WithSavedXml(lies, "<domain/>"); }), EIO);
}

TEST(SaveImageTest, ALongerNameFitsForTheMetadataThatGoes) {
  const std::string xml =
      "<domain type='qemu'>\n  <name>a</name>\n  <metadata>\n    "
      "<x xmlns='urn:x'>a text that is longer than any name can be made here"
      "</x>\n  </metadata>\n  <memory>1</memory>\n</domain>\n";
  const std::string name(58, 'b');
  const std::string fresh = SavedDomain(xml, name);
  EXPECT_NE(fresh.find("<name>" + name + "</name>"), std::string::npos);
  EXPECT_EQ(fresh.find("metadata"), std::string::npos);
  EXPECT_NE(fresh.find("<memory>1</memory>"), std::string::npos);
  EXPECT_LE(fresh.size(), xml.size());
  EXPECT_EQ(ErrnoOf([] { (void)SavedDomain("<x/>", "a"); }), EIO);
}

}  // namespace
}  // namespace sbxfs
