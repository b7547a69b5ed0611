// Changes of one thing in the text of config.yaml: a dotted key, a mount, a
// port. The first line names it and its value, the rest is the text.
#include <optional>

#include "backend/spec/layers.h"
#include "backend/spec/spec.h"
#include "backend/spec/yaml.h"
#include "backend/util/text.h"
#include "backend/util/utf8.h"
#include "tests/fuzz/config_words.h"
#include "tests/fuzz/fuzz.h"

namespace sbxfs::fuzz {
namespace {

constexpr std::string_view kKeys[] = {
    "cpus",      "memory",    "disk",      "ssh.localPort",      "description",
    "autostart", "user.name", "maxMemory", "firmware.legacyBIOS"};

using Set = std::string (*)(std::string_view text, std::string_view name,
                            std::string_view value);

// What was changed is there, another time changes nothing, and it goes again.
void CheckSet(Set set, const std::string& text, const std::string& name,
              const std::string& value) {
  std::optional<std::string> changed;
  const auto plain = [](const Error& error) {
    Check(error.Errno() == EINVAL, "a refusal to edit is EINVAL",
          error.Sentence());
  };
  if (!Try([&] { changed = set(text, name, value); }, plain)) return;
  try {
    (void)ReadYaml("config.yaml", *changed);
  } catch (const Error& error) {
    Fail("what was edited can be read",
         error.Sentence() + "\n" + text + "\n---\n" + *changed);
  }
  // One of two rules for the same ports goes at a time; and what a path's
  // templates are is looked at where the whole text is.
  (void)Try([&] {
    if (value.empty()) return;
    CheckSame(set(*changed, name, value), *changed, "a change, again");
  });
  // Taking away may be refused, where the layout does not allow it.
  (void)Try([&] { (void)ReadYaml("config.yaml", set(*changed, name, "")); },
            plain);
}

void CheckKey(const std::string& text, const std::string& key,
              const std::string& value) {
  CheckSet(SetKey, text, key, value);
  std::optional<std::string> changed;
  if (!Try([&] { changed = SetKey(text, key, value); })) return;
  // What is no scalar is no value of that key, and no text that is kept.
  if (!Try([&] { CheckLayer("config.yaml", text, true); })) return;
  Check(SetsKey(*changed, key) == !value.empty(), "a key is set, or gone",
        *changed);
}

}  // namespace
}  // namespace sbxfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sbxfs;
  using namespace sbxfs::fuzz;
  Bytes bytes(data, size);
  const std::string line = bytes.Line();
  const std::string text = bytes.Rest();
  const size_t blank = std::min(line.find(' '), line.size());
  const std::string name = line.substr(0, blank);
  const std::string value = line.substr(std::min(blank + 1, line.size()));
  for (const std::string_view key : kKeys) {
    if (key == name) CheckKey(text, name, value);
  }
  CheckSet(SetMount, text, name, value);
  CheckSet(SetForward, text, name, value);
  (void)Try([&] {
    const std::string renewed = RenewMacs(
        text, [](size_t) { return std::string("52:54:00:00:00:01"); });
    (void)ReadYaml("config.yaml", renewed);
  });
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size,
                                          size_t most, unsigned seed) {
  using namespace sbxfs::fuzz;
  return MutateLines(data, size, most, seed, ConfigLines(), ConfigValues());
}
