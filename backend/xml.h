#ifndef SBXFS_BACKEND_XML_H_
#define SBXFS_BACKEND_XML_H_

#include <libxml/tree.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sbxfs {

// libxml2 held as values. For backend/ alone; safe from any thread as long as
// a document stays with one.

struct XmlDocDeleter {
  void operator()(xmlDoc* doc) const { xmlFreeDoc(doc); }
};
using XmlDoc = std::unique_ptr<xmlDoc, XmlDocDeleter>;

using XmlAttributes =
    std::initializer_list<std::pair<const char*, std::string_view>>;

// Null for text that is not well-formed. Nothing is fetched and no entity is
// expanded: a text with a document type is refused.
[[nodiscard]] XmlDoc ParseXml(std::string_view text);

// The same of a text whose root element is to be `root`. Throws Error(EIO) for
// another.
[[nodiscard]] XmlDoc ParseXmlOf(std::string_view text, const char* root);

// A document with nothing but its root element.
[[nodiscard]] XmlDoc NewXml(const char* root);

// Adds a child, escaped; the document owns it. Throws Error(EINVAL) for a value
// that XML cannot hold: control characters, or bytes that are not UTF-8.
xmlNode* AddXml(xmlNode* parent, const char* name, std::string_view text,
                XmlAttributes attributes = {});
xmlNode* AddXml(xmlNode* parent, const char* name,
                XmlAttributes attributes = {});

// Sets an attribute, which the element has not yet.
void SetXml(xmlNode* node, const char* name, std::string_view value);

// Takes away all child elements of that name.
void RemoveChild(xmlNode* parent, std::string_view name);
// Puts one with that text in their place; an empty text: none.
void ReplaceChild(xmlNode* parent, const char* name, std::string_view text);
// Adds a whole text as a child, in a namespace that it declares itself.
void AdoptXml(xmlNode* parent, std::string_view text, const char* uri,
              const char* prefix);

// Puts an element and all that is below it in a namespace, which `declaring`,
// the element or one above it, declares, unless that is so already.
void PutInNamespace(xmlNode* node, xmlNode* declaring, const char* uri,
                    const char* prefix);

// An element and what is below it, indented, with a newline at its end.
[[nodiscard]] std::string FormatXml(xmlNode* node);

[[nodiscard]] std::string_view XmlName(const xmlNode* node);
// All the text below a node; empty for null.
[[nodiscard]] std::string XmlContent(const xmlNode* node);
// Empty when there is none.
[[nodiscard]] std::string XmlAttribute(const xmlNode* node, const char* name);
// The child elements; none for null.
[[nodiscard]] std::vector<xmlNode*> XmlChildren(const xmlNode* parent);
// The first child element of that name, whatever its namespace; null for none.
[[nodiscard]] xmlNode* XmlChild(const xmlNode* parent, std::string_view name);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_XML_H_
