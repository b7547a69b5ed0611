// The words of a command line: sbxfs's own, and what mount(8) gives its helper,
// one a line.
#include <string>
#include <vector>

#include "backend/util/text.h"
#include "fs/options.h"
#include "mount-helper/mount_args.h"
#include "tests/fuzz/fuzz.h"

namespace sbxfs::fuzz {
namespace {

void CheckErrors(const std::vector<std::string>& errors) {
  for (const auto& error : errors) {
    Check(error.starts_with("Cannot "), "a sentence that begins with Cannot",
          error);
  }
}

Options Parsed(std::vector<std::string> words) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  return ParseOptions(static_cast<int>(words.size()), argv.data());
}

void CheckOptions(const std::vector<std::string>& words) {
  std::vector<std::string> all = {"sbxfs"};
  all.insert(all.end(), words.begin(), words.end());
  const Options options = Parsed(all);
  CheckErrors(options.errors);
  if (!options.errors.empty() || options.help || options.version) return;
  Check(options.trash.count() >= 0 && options.stop_timeout.count() > 0 &&
            options.start_timeout.count() > 0,
        "times that can be waited for");
  Check(!options.pool.empty(), "a pool has a name");
  Check(!FuseArguments(options, options.uri).empty(), "words for libfuse");
  (void)options.LogTarget();
}

// The daemon takes what the helper lets through, and nothing else than that.
void CheckHelper(const std::vector<std::string>& words) {
  const MountArgs args = ParseMountArgs(words);
  CheckErrors(args.errors);
  (void)ShellLine(words);
  if (!args.errors.empty() || args.help || args.version) return;
  const auto command = DaemonCommand(args, "/usr/bin/sbxfs");
  const Options options = Parsed(command);
  if (!options.errors.empty() || options.help || options.version ||
      options.connect) {
    return;
  }
  CheckSame(options.uri, args.spec, "the URI that mount(8) was given");
  CheckSame(options.dir, args.dir, "the directory that mount(8) was given");
}

}  // namespace
}  // namespace sbxfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sbxfs;
  std::vector<std::string> words;
  for (const std::string_view word : Split(fuzz::Text(data, size), '\n')) {
    // A word ends at a NUL.
    words.emplace_back(word.substr(0, word.find('\0')));
  }
  fuzz::CheckOptions(words);
  fuzz::CheckHelper(words);
  return 0;
}
