// Names, and the words and values that are written into files of the tree.
#include <algorithm>

#include "backend/backend.h"
#include "backend/disk_names.h"
#include "backend/documents.h"
#include "backend/domain_xml.h"
#include "backend/egress/rules.h"
#include "backend/forwards.h"
#include "backend/guest/boot.h"
#include "backend/guest/keys.h"
#include "backend/guest/ssh_handle.h"
#include "backend/metadata.h"
#include "backend/run_info.h"
#include "backend/snapshot_xml.h"
#include "backend/spec/scalar.h"
#include "backend/spec/spec.h"
#include "backend/spec/template.h"
#include "backend/spec/yaml.h"
#include "backend/util/text.h"
#include "backend/util/utf8.h"
#include "fs/name.h"
#include "fs/value_file.h"
#include "tests/fuzz/fuzz.h"

namespace sbxfs::fuzz {
namespace {

// What sh makes of a word in single quotes.
std::string Unquoted(std::string_view word) {
  std::string text;
  bool quoted = false;
  for (size_t i = 0; i < word.size(); ++i) {
    if (word[i] == '\'') {
      quoted = !quoted;
    } else if (!quoted && word[i] == '\\' && i + 1 < word.size()) {
      text += word[++i];
    } else {
      Check(quoted, "nothing for a shell to read", word);
      text += word[i];
    }
  }
  Check(!quoted, "quotes that close", word);
  return text;
}

void CheckName(const std::string& text) {
  const bool valid = Name::Valid(text);
  const bool taken = Try([&] { (void)Name::Parse("make", text); });
  Check(valid == taken, "a name is as valid as it is taken", text);
  if (!valid) return;
  // It is a name of all that it becomes.
  DomainInput input;
  input.test = true;
  input.name = text;
  input.description = text;
  input.metadata.trashed_name = text;
  const DomainFacts facts = ParseDomain(DomainXml(input));
  CheckSame(facts.name, text, "a name in XML");
  CheckSame(facts.metadata->trashed_name, text, "a name in the trash");
  CheckSame(StripYaml(text + ".yaml"), text, "a name's text");
  Check(IsEntryName(text), "a name is an entry", text);
  CheckSame(DiskOfVolume(DiskVolume(text)), text, "a disk's volume");
  Check(DiskSerial(text).size() <= 20, "a disk's serial", text);
}

void CheckTexts(const std::string& text) {
  if (const auto size = ParseSize(text)) {
    const std::string shown = FormatSize(*size);
    Check(ParseSize(shown) == *size, "a size reads back", shown);
  }
  if (const auto duration = ParseDuration(text)) {
    Check(duration->count() >= 0, "a time is not below zero", text);
    const std::string shown = FormatDuration(*duration);
    Check(ParseDuration(shown) == *duration, "a time reads back", shown);
  }
  const std::string coded = Base64Encode(text);
  Check(Base64Decode(coded) == text, "base64 reads back", text);
  if (const auto bytes = Base64Decode(text)) {
    Check(Base64Decode(Base64Encode(*bytes)) == *bytes, "base64, again", text);
  }
  CheckSame(Unquoted(ShellQuote(text)), text, "a word for a shell");
  const std::string line = OneLine(text);
  Check(IsPlainLine(line), "one line is one", line);
  Check(IsPlainLine(ForSentence(text)), "a sentence's text is on a line", text);
  Check(LastWords(text).size() <= 310 && IsPlainLine(LastWords(text)),
        "last words are few", LastWords(text));
  if (const auto port = ParsePort(text)) {
    Check(*port >= 1 && *port <= 65535, "a port", text);
  }
  for (const std::string_view part : Split(text, ',')) {
    Check(part.find(',') == part.npos, "a part has no separator", part);
  }
  CheckSame(UnsealText(SealText(text)).value_or("(none)"), text,
            "a text that was sealed");
  (void)UnsealText(text);
  (void)NearestName(text, {"start", "stop", "wait", "config.yaml"});
  (void)Part(text, text.size() / 2, 7);
  (void)IsAddress(text);
  (void)LooksScratch(text);
}

void CheckWords(const std::string& text) {
  if (const auto verb = ParseVerb(text)) {
    CheckSame(VerbName(*verb), text, "a verb's name");
  }
  if (const auto state = ParseState(text)) {
    CheckSame(StateName(*state), text, "a state's name");
  }
  if (const auto forward = ParseHostfwd(text)) {
    const auto again = ParseHostfwd(FormatHostfwd(*forward));
    Check(again == forward, "a forward reads back", text);
  }
  if (const auto rule = ParseEgressRule(text)) {
    Check(IsPlainLine(rule->host) && !rule->host.empty(), "a rule's host",
          rule->host);
    CheckSame(Lower(rule->host), rule->host, "a rule in lower case");
  }
  if (const auto to = ParseDestination(text, 80)) {
    Check(to->port >= 1 && to->port <= 65535, "a destination's port", text);
    Check(IsPlainLine(to->host), "a destination's host", to->host);
    Check(Allowing({}, *to) == nullptr, "nothing is allowed by no rule", text);
  }
  Check(TagOf(text).find("~undo.") != 0, "a tag of no undo", text);
  if (IsSecretName(text)) {
    RunInfo run;
    run.secrets = {text};
    Check(ParseRun(FormatRun(run)).secrets == run.secrets, "a secret's name",
          text);
  }
  (void)Try([&] {
    const std::string line = OneLine("status", text);
    Check(line.find('\n') == line.npos, "a line is one", line);
  });
  if (Try([&] { CheckAuthorizedKeys(text); })) {
    for (const std::string_view line : Split(text, '\n')) {
      Check(line.find('\0') == line.npos || Trim(line).starts_with('#'),
            "keys are text", text);
    }
  }
  (void)ImportPublicKey(text);
}

void CheckYaml(const std::string& text) {
  // As an edit of config.yaml would write it, and a reader reads it.
  if (FindNotPlain(text) == std::string_view::npos) {
    for (const bool flow : {false, true}) {
      const std::string scalar =
          FormatScalar(text, ValueType::kText, flow, '\0');
      const std::string document =
          flow ? "a: [" + scalar + "]\n" : "a: " + scalar + "\n";
      try {
        const YamlNode root = ReadYaml("x", document);
        const YamlNode* node = root.Find("a");
        Check(node != nullptr, "a key", document);
        if (flow) node = &node->items.at(0);
        Check(node->kind == YamlNode::Kind::kScalar, "a scalar", document);
        CheckSame(node->value, text, "a text in YAML");
      } catch (const Error& error) {
        Fail("YAML that can be read", error.Sentence() + "\n" + document);
      }
    }
  }
  std::vector<std::string> params;
  if (CheckTemplate(text, TemplateSide::kGuest, params).empty()) {
    (void)ExpandTemplate(text, [](std::string_view name) {
      return name.size() % 3 == 0 ? std::nullopt
                                  : std::optional(std::string("{{.Name}}"));
    });
  }
}

}  // namespace
}  // namespace sbxfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(sbxfs::fuzz::Text(data, size));
  sbxfs::fuzz::CheckName(text);
  sbxfs::fuzz::CheckTexts(text);
  sbxfs::fuzz::CheckWords(text);
  sbxfs::fuzz::CheckYaml(text);
  return 0;
}
