#include "fs/job_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cerrno>

#include "backend/util/text.h"
#include "fs/tree.h"
#include "fs/value_file.h"

namespace sbxfs {
namespace {

constexpr size_t kLongestCommand = 65536;

std::string Line(std::string text) {
  return text.empty() ? text : std::move(text) + '\n';
}

void CheckLength(std::string_view noun, const std::string& text) {
  if (text.size() <= kLongestCommand) return;
  throw Error(E2BIG,
              fmt::format("Cannot write '{}': it has {} bytes at most; put a "
                          "script into the guest and run that",
                          noun, kLongestCommand));
}

void Prepare(const Change& change, const Reply<Done>& reply,
             const std::function<void(JobWish&)>& set) {
  change.tree.backend.GetJobs().Prepare(change.job->id, set);
  reply.Ok();
}

bool IsLogin(std::string_view name) {
  return !name.empty() && name.size() <= 32 && name[0] != '-' &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.';
         });
}

}  // namespace

namespace show {

std::string JobCommand(const View& view) {
  const JobWish& wish = view.job->wish;
  if (!wish.shell) return "";
  const std::string& text = wish.words.at(0);
  return text.ends_with('\n') ? text : text + '\n';
}

std::string JobArgv(const View& view) {
  const JobWish& wish = view.job->wish;
  std::string text;
  if (wish.shell) return text;
  for (const auto& word : wish.words) text += word + '\0';
  return text;
}

std::string JobEnv(const View& view) {
  std::string text;
  for (const auto& variable : view.job->wish.env) text += variable + '\n';
  return text;
}

std::string JobCwd(const View& view) { return Line(view.job->wish.cwd); }
std::string JobUser(const View& view) { return Line(view.job->wish.user); }
std::string JobInput(const View& view) { return view.job->wish.input; }

std::string JobDeadline(const View& view) {
  const auto deadline = view.job->wish.deadline;
  return deadline ? fmt::format("{}\n", deadline->count()) : "none\n";
}

std::string JobStateText(const View& view) {
  return std::string(JobStateName(view.job->state)) + '\n';
}

std::string JobReason(const View& view) { return Line(view.job->reason); }

std::string JobExitCode(const View& view) {
  const auto code = view.job->exit_code;
  return code ? fmt::format("{}\n", *code) : "";
}

}  // namespace show

namespace store {

void JobCommand(const Change& change, Reply<Done> reply) {
  CheckLength("command", change.text);
  if (Trim(change.text).empty()) {
    throw Error(EINVAL,
                "Cannot run 'command': it is empty; write a line for "
                "the guest's shell");
  }
  if (change.text.find('\0') != std::string::npos) {
    throw Error(EINVAL,
                "Cannot run 'command': there is a NUL in it; words "
                "that end in NUL go to argv");
  }
  std::string text = change.text;
  if (text.ends_with('\n')) text.pop_back();
  change.tree.backend.GetJobs().Run(change.job->id, {text}, true, change.wait,
                                    std::move(reply));
}

void JobArgv(const Change& change, Reply<Done> reply) {
  CheckLength("argv", change.text);
  std::string_view text = change.text;
  // printf 'ls\0-l' and printf 'ls\0-l\0' mean the same, and echo adds a line.
  if (text.ends_with('\n') && text.find('\0') == std::string_view::npos) {
    text.remove_suffix(1);
  }
  if (text.ends_with('\0')) text.remove_suffix(1);
  std::vector<std::string> words;
  for (const auto word : Split(text, '\0')) words.emplace_back(word);
  if (words.front().empty()) {
    throw Error(EINVAL,
                "Cannot run 'argv': its first word is empty; write "
                "the program and its arguments, each ended by NUL");
  }
  change.tree.backend.GetJobs().Run(change.job->id, words, false, change.wait,
                                    std::move(reply));
}

void JobEnv(const Change& change, Reply<Done> reply) {
  CheckLength("env", change.text);
  std::vector<std::string> added;
  for (const auto line : Split(change.text, '\n')) {
    if (line.empty()) continue;
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos ||
        !IsVariable(line.substr(0, equals)) ||
        line.find('\0') != std::string_view::npos) {
      throw Error(EINVAL, fmt::format("Cannot write 'env': '{}' is not "
                                      "KEY=value; a line each, please",
                                      line.substr(0, equals)));
    }
    added.emplace_back(line);
  }
  Prepare(change, reply, [&](JobWish& wish) {
    for (const auto& variable : added) {
      const std::string key = variable.substr(0, variable.find('=') + 1);
      std::erase_if(wish.env, [&](const std::string& one) {
        return one.starts_with(key);
      });
      wish.env.push_back(variable);
    }
  });
}

void JobCwd(const Change& change, Reply<Done> reply) {
  const std::string cwd = OneLine("cwd", change.text);
  if (!cwd.starts_with('/')) {
    throw Error(EINVAL, fmt::format("Cannot write 'cwd': '{}' is not "
                                    "absolute; begin with '/'",
                                    cwd));
  }
  Prepare(change, reply, [&](JobWish& wish) { wish.cwd = cwd; });
}

void JobUser(const Change& change, Reply<Done> reply) {
  const std::string user(Trim(OneLine("user", change.text)));
  if (!IsLogin(user)) {
    throw Error(EINVAL, fmt::format("Cannot write 'user': '{}' is no login "
                                    "name; letters, digits, '_', '-' and '.'",
                                    user));
  }
  Prepare(change, reply, [&](JobWish& wish) { wish.user = user; });
}

void JobInput(const Change& change, Reply<Done> reply) {
  Prepare(change, reply, [&](JobWish& wish) { wish.input = change.text; });
}

void JobDeadline(const Change& change, Reply<Done> reply) {
  const std::string text(Trim(OneLine("deadline", change.text)));
  std::optional<std::chrono::seconds> deadline;
  if (text != "none") {
    deadline = ParseDuration(text);
    if (!deadline || deadline->count() == 0) {
      throw Error(EINVAL, fmt::format("Cannot write 'deadline': '{}' is no "
                                      "number of seconds; write 90, 15m, 2h "
                                      "or none",
                                      text));
    }
  }
  Prepare(change, reply, [&](JobWish& wish) { wish.deadline = deadline; });
}

}  // namespace store
}  // namespace sbxfs
