#include "backend/xml.h"

#include <fmt/format.h>
#include <libxml/parser.h>

#include <cerrno>
#include <climits>
#include <new>

#include "backend/util/error.h"
#include "backend/util/utf8.h"

namespace sbxfs {
namespace {

struct XmlStringDeleter {
  void operator()(xmlChar* text) const { xmlFree(text); }
};
using XmlString = std::unique_ptr<xmlChar, XmlStringDeleter>;

const xmlChar* ToXml(const char* text) {
  return reinterpret_cast<const xmlChar*>(text);
}

std::string_view FromXml(const xmlChar* text) {
  return text == nullptr ? "" : reinterpret_cast<const char*>(text);
}

template <typename T>
T* Allocated(T* pointer) {
  if (pointer == nullptr) throw std::bad_alloc();
  return pointer;
}

std::string Checked(const char* name, std::string_view value) {
  // A return would come back as a newline.
  if (FindNotPlain(value) != std::string_view::npos ||
      value.find('\r') != std::string_view::npos) {
    throw Error(EINVAL, fmt::format("Cannot store '{}' in the domain: it has "
                                    "control characters or is not UTF-8",
                                    name));
  }
  return std::string(value);
}

void SetNamespace(xmlNode* node, xmlNs* ns) {
  xmlSetNs(node, ns);
  for (xmlNode* child = node->children; child != nullptr; child = child->next) {
    if (child->type == XML_ELEMENT_NODE) SetNamespace(child, ns);
  }
}

}  // namespace

XmlDoc ParseXml(std::string_view text) {
  if (text.size() > INT_MAX) return nullptr;
  XmlDoc doc(xmlReadMemory(
      text.data(), static_cast<int>(text.size()), nullptr, "UTF-8",
      XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING));
  if (doc && doc->intSubset != nullptr) return nullptr;
  return doc;
}

XmlDoc ParseXmlOf(std::string_view text, const char* root) {
  XmlDoc doc = ParseXml(text);
  if (!doc || XmlName(xmlDocGetRootElement(doc.get())) != root) {
    throw Error(EIO,
                fmt::format("Cannot read the XML of a {}: libvirt gave a text "
                            "that is none; look at it with virsh",
                            root));
  }
  return doc;
}

XmlDoc NewXml(const char* root) {
  XmlDoc doc(Allocated(xmlNewDoc(ToXml("1.0"))));
  xmlDocSetRootElement(
      doc.get(),
      Allocated(xmlNewDocNode(doc.get(), nullptr, ToXml(root), nullptr)));
  return doc;
}

void SetXml(xmlNode* node, const char* name, std::string_view value) {
  Allocated(xmlNewProp(node, ToXml(name), ToXml(Checked(name, value).c_str())));
}

xmlNode* AddXml(xmlNode* parent, const char* name, std::string_view text,
                XmlAttributes attributes) {
  // xmlNewChild would take an ampersand for an entity; an empty text would
  // keep the element from being written as <name/>.
  const std::string content = Checked(name, text);
  xmlNode* node = Allocated(
      xmlNewTextChild(parent, nullptr, ToXml(name),
                      content.empty() ? nullptr : ToXml(content.c_str())));
  for (const auto& [key, value] : attributes) SetXml(node, key, value);
  return node;
}

xmlNode* AddXml(xmlNode* parent, const char* name, XmlAttributes attributes) {
  return AddXml(parent, name, "", attributes);
}

void PutInNamespace(xmlNode* node, xmlNode* declaring, const char* uri,
                    const char* prefix) {
  xmlNs* ns = xmlSearchNsByHref(declaring->doc, declaring,
                                reinterpret_cast<const xmlChar*>(uri));
  if (ns == nullptr) {
    ns = xmlNewNs(declaring, reinterpret_cast<const xmlChar*>(uri),
                  reinterpret_cast<const xmlChar*>(prefix));
  }
  if (ns == nullptr) {
    throw Error(EIO, fmt::format("Cannot change a domain's XML: its prefix "
                                 "'{}' stands for another namespace than '{}'",
                                 prefix, uri));
  }
  SetNamespace(node, ns);
}

void RemoveChild(xmlNode* parent, std::string_view name) {
  while (xmlNode* node = XmlChild(parent, name)) {
    xmlUnlinkNode(node);
    xmlFreeNode(node);
  }
}

void ReplaceChild(xmlNode* parent, const char* name, std::string_view text) {
  RemoveChild(parent, name);
  if (!text.empty()) AddXml(parent, name, text);
}

void AdoptXml(xmlNode* parent, std::string_view text, const char* uri,
              const char* prefix) {
  const XmlDoc doc = ParseXml(text);
  xmlNode* copy =
      xmlDocCopyNode(xmlDocGetRootElement(doc.get()), parent->doc, 1);
  if (copy == nullptr) throw std::bad_alloc();
  xmlAddChild(parent, copy);
  PutInNamespace(copy, copy, uri, prefix);
}

std::string FormatXml(xmlNode* node) {
  const std::unique_ptr<xmlBuffer, decltype(&xmlBufferFree)> buffer(
      Allocated(xmlBufferCreate()), &xmlBufferFree);
  if (xmlNodeDump(buffer.get(), node->doc, node, 0, 1) < 0) {
    throw std::bad_alloc();
  }
  return fmt::format("{}\n", FromXml(xmlBufferContent(buffer.get())));
}

std::string_view XmlName(const xmlNode* node) { return FromXml(node->name); }

std::string XmlContent(const xmlNode* node) {
  if (node == nullptr) return "";
  const XmlString text(xmlNodeGetContent(node));
  return std::string(FromXml(text.get()));
}

std::string XmlAttribute(const xmlNode* node, const char* name) {
  if (node == nullptr) return "";
  const XmlString text(xmlGetNoNsProp(node, ToXml(name)));
  return std::string(FromXml(text.get()));
}

std::vector<xmlNode*> XmlChildren(const xmlNode* parent) {
  std::vector<xmlNode*> children;
  for (xmlNode* node = parent == nullptr ? nullptr : parent->children;
       node != nullptr; node = node->next) {
    if (node->type == XML_ELEMENT_NODE) children.push_back(node);
  }
  return children;
}

xmlNode* XmlChild(const xmlNode* parent, std::string_view name) {
  if (parent == nullptr) return nullptr;
  for (xmlNode* node = parent->children; node != nullptr; node = node->next) {
    if (node->type == XML_ELEMENT_NODE && XmlName(node) == name) return node;
  }
  return nullptr;
}

}  // namespace sbxfs
