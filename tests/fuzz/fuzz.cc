#include "tests/fuzz/fuzz.h"

#include <libxml/relaxng.h>
#include <libxml/xmlerror.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "backend/util/text.h"
#include "backend/xml.h"

namespace sbxfs::fuzz {
namespace {

void SayNothing(void*, const char*, ...) {}

// What a sandbox's logs would be full of, and libxml2's words on stderr.
const bool kQuiet = [] {
  spdlog::set_level(spdlog::level::off);
  xmlSetGenericErrorFunc(nullptr, SayNothing);
  return true;
}();

size_t Give(const std::string& text, uint8_t* data, size_t most) {
  if (text.size() > most) return 0;
  std::memcpy(data, text.data(), text.size());
  return text.size();
}

template <typename List>
const auto& One(Dice& dice, const List& list) {
  return list[dice.Roll(list.size())];
}

// The elements of a document, parents first.
void Gather(xmlNode* node, std::vector<xmlNode*>& all) {
  all.push_back(node);
  for (xmlNode* child : XmlChildren(node)) Gather(child, all);
}

const xmlChar* Xml(const std::string& text) {
  return reinterpret_cast<const xmlChar*>(text.c_str());
}

}  // namespace

void Fail(std::string_view what, std::string_view text) {
  std::fprintf(stderr, "does not hold: %.*s\n%.*s\n",
               static_cast<int>(what.size()), what.data(),
               static_cast<int>(text.size()), text.data());
  std::abort();
}

void CheckError(const Error& error) {
  const int code = error.Errno();
  Check(code > 0 && code < 4096 && code != ENOTCONN && code != ENOSYS,
        "an errno that a program can be given", error.Sentence());
  Check(!error.Sentence().empty(), "a sentence that says something");
  Check(error.Sentence().starts_with("Cannot "),
        "a sentence that begins with Cannot", error.Sentence());
}

size_t Dice::Roll(size_t bound) {
  // xorshift64*
  state_ ^= state_ >> 12;
  state_ ^= state_ << 25;
  state_ ^= state_ >> 27;
  return bound == 0 ? 0 : (state_ * 2685821657736338717ULL >> 33) % bound;
}

std::vector<std::string_view> Paragraphs(std::string_view text) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const size_t end = text.find("\n\n");
    std::string_view part = text.substr(0, end);
    while (part.starts_with('\n')) part.remove_prefix(1);
    while (part.ends_with('\n')) part.remove_suffix(1);
    parts.push_back(part);
    text.remove_prefix(end == text.npos ? text.size() : end + 2);
  }
  return parts;
}

size_t MutateLines(uint8_t* data, size_t size, size_t most, unsigned seed,
                   const std::vector<std::string_view>& vocabulary,
                   const std::vector<std::string_view>& values) {
  Dice dice(seed);
  if (dice.Roll(4) == 0) return LLVMFuzzerMutate(data, size, most);
  const std::string text(Text(data, size));
  std::vector<std::string> lines;
  for (const std::string_view line : Split(text, '\n')) {
    lines.emplace_back(line);
  }
  const size_t at = dice.Roll(lines.size());
  const auto place = lines.begin() + static_cast<ptrdiff_t>(at);
  switch (dice.Roll(8)) {
    case 0:
    case 1: {  // a new one, as far in as the one there
      const std::string indent(
          std::min(place->find_first_not_of(' '), size_t{8}), ' ');
      std::string fresh;
      for (const std::string_view part : Split(One(dice, vocabulary), '\n')) {
        if (!fresh.empty()) fresh += '\n' + indent;
        fresh += part;
      }
      lines.insert(place, (dice.Roll(3) == 0 ? "" : indent) + fresh);
      break;
    }
    case 2:
    case 3: {  // another value
      const size_t colon = place->find(": ");
      const size_t item = place->find("- ");
      const size_t begin = colon != place->npos  ? colon + 2
                           : item != place->npos ? item + 2
                                                 : place->size();
      place->replace(begin, place->npos, One(dice, values));
      break;
    }
    case 4:
      lines.erase(place);
      break;
    case 5: {
      const std::string copy = *place;
      lines.insert(
          lines.begin() + static_cast<ptrdiff_t>(dice.Roll(lines.size() + 1)),
          copy);
      break;
    }
    case 6:
      if (dice.Roll(2) == 0) {
        place->insert(0, 1 + dice.Roll(4), ' ');
      } else {
        place->erase(0,
                     std::min(place->find_first_not_of(' '), 1 + dice.Roll(4)));
      }
      break;
    default:
      std::swap(*place, lines[dice.Roll(lines.size())]);
  }
  std::string made;
  for (size_t i = 0; i < lines.size(); ++i) {
    made += (i == 0 ? "" : "\n") + lines[i];
  }
  return Give(made, data, most);
}

size_t MutateXml(uint8_t* data, size_t size, size_t most, unsigned seed,
                 const std::vector<std::string_view>& vocabulary,
                 const std::vector<std::string_view>& values) {
  Dice dice(seed);
  const XmlDoc doc = dice.Roll(6) == 0 ? nullptr : ParseXml(Text(data, size));
  xmlNode* root = doc ? xmlDocGetRootElement(doc.get()) : nullptr;
  if (root == nullptr) return LLVMFuzzerMutate(data, size, most);
  std::vector<xmlNode*> all;
  Gather(root, all);
  xmlNode* node = One(dice, all);
  const std::string value(One(dice, values));
  switch (dice.Roll(6)) {
    case 0:
    case 1: {
      const XmlDoc fresh = ParseXml(One(dice, vocabulary));
      Check(fresh != nullptr, "a vocabulary of XML");
      xmlAddChild(node, xmlDocCopyNode(xmlDocGetRootElement(fresh.get()),
                                       doc.get(), 1));
      break;
    }
    case 2: {
      std::vector<std::string> names;
      for (const xmlAttr* one = node->properties; one != nullptr;
           one = one->next) {
        names.emplace_back(reinterpret_cast<const char*>(one->name));
      }
      // What holds further elements loses none for a text.
      if (names.empty() && !XmlChildren(node).empty()) break;
      if (names.empty() || dice.Roll(3) == 0) {
        xmlNodeSetContent(node, nullptr);
        xmlNodeAddContent(node, Xml(value));
      } else {
        xmlSetProp(node, Xml(One(dice, names)), Xml(value));
      }
      break;
    }
    case 3:
      if (node == root) break;
      xmlUnlinkNode(node);
      xmlFreeNode(node);
      break;
    default: {
      xmlNode* copy = xmlDocCopyNode(node, doc.get(), 1);
      xmlAddChild(One(dice, all), copy);
      xmlReconciliateNs(doc.get(), copy);
    }
  }
  return Give(FormatXml(root), data, most);
}

Schema::Schema(const std::string& name) {
  const std::string path = "/usr/share/libvirt/schemas/" + name + ".rng";
  if (access(path.c_str(), R_OK) != 0) return;
  xmlRelaxNGParserCtxt* parser = xmlRelaxNGNewParserCtxt(path.c_str());
  xmlRelaxNG* schema = xmlRelaxNGParse(parser);
  Check(schema != nullptr, "a schema that libxml2 reads", path);
  xmlRelaxNGFreeParserCtxt(parser);
  schema_ = schema;
}

std::string Schema::Refusal(std::string_view xml) const {
  const XmlDoc doc = ParseXml(xml);
  if (!doc) return "it is no XML";
  if (schema_ == nullptr) return "";
  xmlRelaxNGValidCtxt* context =
      xmlRelaxNGNewValidCtxt(static_cast<xmlRelaxNG*>(schema_));
  std::string why;
  xmlRelaxNGSetValidStructuredErrors(
      context,
      [](void* to, auto* error) {  // const in later versions
        if (error->message != nullptr) {
          static_cast<std::string*>(to)->append(error->message);
        }
      },
      &why);
  const int result = xmlRelaxNGValidateDoc(context, doc.get());
  xmlRelaxNGFreeValidCtxt(context);
  if (result == 0) return "";
  return why.empty() ? "it does not pass" : why;
}

void Schema::MustPass(std::string_view xml) const {
  const std::string why = Refusal(xml);
  if (!why.empty()) {
    Fail("what is generated passes libvirt's schema",
         why + "\n" + std::string(xml));
  }
}

}  // namespace sbxfs::fuzz
