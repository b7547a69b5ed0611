#include "fs/status.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <pwd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <utility>

#include "backend/util/error.h"
#include "backend/util/text.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

using Instant = std::chrono::steady_clock::time_point;

// A tree answers from memory, in milliseconds.
constexpr std::chrono::seconds kPatience{3};

// Asks in a process of its own: who asks a mount whose daemon hangs may come
// back by no signal at all. That one is left behind, with no stream of ours.
class Question {
 public:
  explicit Question(const std::function<std::string()>& ask) {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) Refuse();
    answer_.Reset(ends[0]);
    const UniqueFd tell(ends[1]);
    pid_ = fork();
    if (pid_ < 0) Refuse();
    if (pid_ == 0) Ask(ask, tell.Get());
  }
  Question(Question&& other) noexcept
      : pid_(std::exchange(other.pid_, -1)),
        answer_(std::move(other.answer_)) {}
  ~Question() {
    if (pid_ < 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, WNOHANG);
  }

  // What was said; nothing when not all of it came until then.
  [[nodiscard]] std::optional<std::string> Answer(Instant until) {
    std::string text;
    std::array<char, 4096> buffer;
    while (true) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(
          until - std::chrono::steady_clock::now());
      pollfd ready{answer_.Get(), POLLIN, 0};
      const int polled =
          poll(&ready, 1, std::max(static_cast<int>(left.count()), 0));
      if (polled < 0 && errno == EINTR) continue;
      if (polled <= 0) return std::nullopt;
      const ssize_t got = read(answer_.Get(), buffer.data(), buffer.size());
      if (got <= 0) return text;
      text.append(buffer.data(), static_cast<std::size_t>(got));
    }
  }

 private:
  [[noreturn]] static void Refuse() {
    throw Error(EAGAIN, fmt::format("Cannot look at the mounts: {}",
                                    std::strerror(errno)));
  }

  [[noreturn]] static void Ask(const std::function<std::string()>& ask,
                               int tell) {
    const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int stream = 0; stream < 3; ++stream) dup2(nothing, stream);
    const std::string text = ask();
    std::string_view rest = text;
    while (!rest.empty()) {
      const ssize_t done = write(tell, rest.data(), rest.size());
      if (done <= 0) break;
      rest.remove_prefix(static_cast<std::size_t>(done));
    }
    _exit(0);
  }

  pid_t pid_ = -1;
  UniqueFd answer_;
};

// The text of a file of a tree; the first error is kept.
std::string TreeText(const std::string& path, int& error) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  std::array<char, 4096> buffer;
  ssize_t got = -1;
  while (file.Valid() &&
         (got = read(file.Get(), buffer.data(), buffer.size())) > 0) {
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  if (got < 0 && error == 0) error = errno;
  return text;
}

// Names in a directory, in order; none where it is not there.
std::vector<std::string> NamesIn(const std::string& path) {
  std::vector<std::string> names;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(path, none)) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

Sight::Hypervisor HypervisorAt(const std::string& dir, const std::string& name,
                               int& error) {
  return {name, TreeText(dir + "/uri", error),
          TreeText(dir + "/connection", error)};
}

std::string LookInto(const std::string& dir) {
  Sight sight;
  const std::string host = dir + "/.host";
  sight.list = TreeText(host + "/list", sight.error);
  if (sight.error != 0) return PackSight(sight);
  const std::string hosts = host + "/hosts";
  for (const std::string& name : NamesIn(hosts)) {
    sight.hypervisors.push_back(
        HypervisorAt(fmt::format("{}/{}", hosts, name), name, sight.error));
  }
  if (sight.hypervisors.empty()) {
    sight.hypervisors.push_back(HypervisorAt(host, "", sight.error));
  }
  return PackSight(sight);
}

std::string UserName(uid_t uid) {
  const passwd* entry = getpwuid(uid);
  return entry != nullptr ? entry->pw_name : std::to_string(uid);
}

// The first line, without the newline.
std::string_view FirstLine(std::string_view text) {
  return text.substr(0, text.find('\n'));
}

bool IsConnected(const Sight::Hypervisor& hypervisor) {
  return hypervisor.connection.starts_with("connected");
}

// Whether somebody else's mount has kept us out, as FUSE does with root too.
bool IsOthers(const SbxfsMount& mount, const Sight& sight) {
  return sight.error == EACCES && mount.uid && *mount.uid != geteuid();
}

std::string Trouble(const SbxfsMount& mount, const Sight& sight) {
  if (sight.silent) {
    return fmt::format(
        "it does not answer: its sbxfs hangs or was stopped; see its log, or "
        "end it by fusermount3 -uz '{}' and mount again; guests run on",
        mount.dir);
  }
  if (sight.error == ENOTCONN || sight.error == ECONNABORTED) {
    return fmt::format(
        "it is dead: its sbxfs was killed; fusermount3 -u '{}', then mount "
        "again; guests run on",
        mount.dir);
  }
  if (IsOthers(mount, sight)) {
    return fmt::format("it is {}'s, and not for you to look into",
                       UserName(*mount.uid));
  }
  return std::strerror(sight.error);
}

std::vector<SbxfsMount> MountsToShow(const std::string& dir) {
  std::ifstream file("/proc/self/mountinfo");
  const std::string table{std::istreambuf_iterator<char>(file), {}};
  const auto mounts = SbxfsMounts(table);
  if (dir.empty()) {
    if (!mounts.empty()) return mounts;
    throw Error(ENOENT,
                "Cannot show mounts: no sbxfs is mounted here; sbxfs DIR "
                "mounts one");
  }
  // As it is written first: to follow links may be to ask a mount that hangs.
  const auto path = std::filesystem::absolute(dir).lexically_normal();
  if (const auto* mount = MountAround(mounts, path.native())) return {*mount};
  Question question([&path] {
    const std::unique_ptr<char, decltype(&std::free)> real(
        realpath(path.c_str(), nullptr), &std::free);
    return std::string(real ? real.get() : "");
  });
  const auto real =
      question.Answer(std::chrono::steady_clock::now() + kPatience);
  const auto* mount = MountAround(mounts, real.value_or(""));
  if (mount != nullptr) return {*mount};
  throw Error(ENOENT, fmt::format("Cannot show '{0}': no sbxfs is mounted "
                                  "there; sbxfs '{0}' mounts one",
                                  dir));
}

}  // namespace

int StatusOfSight(const Sight& sight) {
  if (sight.silent || sight.error != 0) return kShownNoTree;
  const bool all = std::all_of(sight.hypervisors.begin(),
                               sight.hypervisors.end(), IsConnected);
  return all ? kShownConnected : kShownDisconnected;
}

std::string SightText(const SbxfsMount& mount, const Sight& sight) {
  if (sight.silent || sight.error != 0) {
    return fmt::format("{}: {}, {}\n", mount.dir, mount.source,
                       Trouble(mount, sight));
  }
  std::string text = mount.dir + ": ";
  const bool several = !sight.hypervisors.front().name.empty();
  if (several) text += mount.source + '\n';
  for (const auto& hypervisor : sight.hypervisors) {
    if (several) text += "  " + hypervisor.name + ": ";
    text += fmt::format("{}, {}\n", FirstLine(hypervisor.uri),
                        FirstLine(hypervisor.connection));
  }
  const auto lines = Split(Trim(sight.list), '\n');
  if (lines.size() < 2) {
    return text +
           fmt::format("  no sandboxes; mkdir '{}/box' makes one\n", mount.dir);
  }
  for (const std::string_view line : lines) {
    text += fmt::format("  {}\n", line);
  }
  return text;
}

std::string PackSight(const Sight& sight) {
  std::string text;
  const auto put = [&text](const std::string& word) {
    text += word;
    text += '\0';
  };
  put(std::to_string(sight.error));
  put(sight.list);
  for (const auto& [name, uri, connection] : sight.hypervisors) {
    put(name);
    put(uri);
    put(connection);
  }
  return text;
}

Sight UnpackSight(std::string_view text) {
  Sight sight;
  const auto words = Split(text, '\0');
  // Each word has a NUL behind it.
  const std::size_t count = words.size() - 1;
  const auto error = ParseNumber(words.front());
  if (count < 2 || !error || (*error == 0 && (count < 5 || count % 3 != 2))) {
    sight.silent = true;
    return sight;
  }
  sight.error = static_cast<int>(*error);
  sight.list = words[1];
  for (std::size_t i = 2; i + 3 <= count; i += 3) {
    sight.hypervisors.push_back({std::string(words[i]),
                                 std::string(words[i + 1]),
                                 std::string(words[i + 2])});
  }
  return sight;
}

const SbxfsMount* MountAround(const std::vector<SbxfsMount>& mounts,
                              std::string_view path) {
  const SbxfsMount* found = nullptr;
  for (const SbxfsMount& mount : mounts) {
    const bool around =
        path.starts_with(mount.dir) &&
        (path.size() == mount.dir.size() || path[mount.dir.size()] == '/');
    if (!around) continue;
    if (found == nullptr || mount.dir.size() > found->dir.size()) {
      found = &mount;
    }
  }
  return found;
}

int ShowStatus(const std::string& dir) {
  const auto mounts = MountsToShow(dir);
  std::vector<Question> questions;
  questions.reserve(mounts.size());
  for (const SbxfsMount& mount : mounts) {
    questions.emplace_back([&mount] { return LookInto(mount.dir); });
  }
  const auto begin = std::chrono::steady_clock::now();
  int status = kShownConnected;
  for (std::size_t i = 0; i < mounts.size(); ++i) {
    // Those after a silent one have their answers ready.
    const auto until =
        std::max(begin + kPatience, std::chrono::steady_clock::now() +
                                        std::chrono::milliseconds(500));
    const auto answer = questions[i].Answer(until);
    const Sight sight = UnpackSight(answer.value_or(""));
    fmt::print("{}", SightText(mounts[i], sight));
    // Of another's mount nothing is known, and nothing is wrong.
    if (!dir.empty() || !IsOthers(mounts[i], sight)) {
      status = std::max(status, StatusOfSight(sight));
    }
  }
  return status;
}

}  // namespace sbxfs
