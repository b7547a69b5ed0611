// Operations, their calls of libvirt and of the C library, and what can go
// wrong with a call: whichever it is, the operation is done or undone, and says
// so. tests/run --long visits all of them, a shorter run some of each.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <map>
#include <random>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "backend/libvirt_backend.h"
#include "backend/util/text.h"
#include "tests/support/faults.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;
using namespace std::chrono_literals;

// What goes wrong, and which calls count (tests/support/faults).
struct Fault {
  const char* kind;
  const char* scope;
};
constexpr std::array<Fault, 12> kFaults = {{{"error", "all"},
                                            {"nomemory", "all"},
                                            {"nospace", "all"},
                                            {"busy", "all"},
                                            {"lost", "all"},
                                            {"late", "all"},
                                            {"delay", "all"},
                                            {"hang", "all"},
                                            {"kill", "all"},
                                            {"eio", "files"},
                                            {"enospc", "files"},
                                            {"emfile", "files"}}};

class FaultMatrixTest : public BlankGuests {
 protected:
  struct Operation {
    const char* name;
    bool runs;  // whether the guest runs when it begins
    std::function<Verdict()> work;
    bool in_parts = false;  // what is left of it goes with the next try
  };
  // What there is: as everyone can see it and as libvirt has it; the volumes;
  // and what waits for a next start.
  struct World {
    std::string seen, volumes, pending;
    bool operator==(const World&) const = default;
  };

  void SetUp() override {
    if (const auto why = NoGuestsBecause(); !why.empty()) GTEST_SKIP() << why;
    order_ = stdfs::path(std::getenv("SBXFS_INSIDE")) / "faults";
    setenv("SBXFS_FAULTS", order_.c_str(), 1);
    {
      const FaultsPreloaded faults;
      BlankGuests::SetUp();
    }
    mount_->ExpectLoggedErrors();
    // The same ones each time, where not all are visited.
    const char* seed = std::getenv("SBXFS_FAULT_SEED");
    seed_ = seed == nullptr ? 1 : static_cast<unsigned>(std::atoi(seed));
    random_.seed(seed_);
  }
  void TearDown() override {
    std::error_code none;
    stdfs::remove(order_, none);
    unsetenv("SBXFS_FAULTS");
    if (mount_ == nullptr) return;
    Reset(false);
    Clear(Dir());
    SweepAll();
    BlankGuests::TearDown();
  }

  // Another mount, which takes what was cut off for abandoned at once.
  void SweepAll() {
    BackendOptions options;
    options.uri = "qemu:///system";
    options.orphan_age = 0s;
    const auto backend = OpenLibvirt(options);
    before_.volumes = Numberless(before_.volumes);
    EXPECT_TRUE(Eventually([this] {
      return Numberless(sbxfs::World::Now().volumes) == before_.volumes;
    })) << sbxfs::World::Now().volumes;
    before_ = sbxfs::World::Now();
  }
  // Layers and documents are numbered on and on, and a sandbox is known by its
  // uuid here.
  [[nodiscard]] static std::string Numberless(const std::string& volumes) {
    static const std::regex kNumbers("[0-9a-f]{8}(-[0-9a-f]{4,12}){4}|[0-9]+");
    return std::regex_replace(volumes, kNumbers, "#");
  }

  // The last sentence about it.
  [[nodiscard]] std::string Error() const {
    std::error_code gone;
    for (const char* file : {"box/error", ".host/trash/old/error"}) {
      if (!stdfs::exists(Dir() / file, gone)) continue;
      if (auto text = ReadLine(Dir() / file); !text.empty()) return text;
    }
    return std::string(Split(ReadText(Host() / "error"), '\n').front());
  }
  // A system call on the tree, with the sentence that is left for it.
  [[nodiscard]] Verdict Do(const std::function<int()>& call) const {
    Verdict verdict = Call(call);
    if (verdict.error != 0) verdict.sentence = Error();
    return verdict;
  }
  [[nodiscard]] Verdict Mkdir(const std::string& path) const {
    return Do([&] { return mkdir((Dir() / path).c_str(), 0700); });
  }
  [[nodiscard]] Verdict Rmdir(const std::string& path) const {
    return Do([&] { return rmdir((Dir() / path).c_str()); });
  }
  [[nodiscard]] Verdict Rename(const std::string& from,
                               const std::string& to) const {
    return Do(
        [&] { return rename((Dir() / from).c_str(), (Dir() / to).c_str()); });
  }
  [[nodiscard]] Verdict Write(const std::string& path, const std::string& text,
                              int flags = 0) const {
    Verdict verdict = WriteText(Dir() / path, text + "\n", flags);
    if (verdict.error != 0 && verdict.sentence.empty()) {
      verdict.sentence = Error();
    }
    return verdict;
  }
  // Starts it without waiting for a ssh that never comes.
  [[nodiscard]] Verdict Start() const {
    Verdict verdict = Write("box/status", "start", O_NONBLOCK);
    if (verdict.error != 0) return verdict;
    const bool runs = Eventually([&] {
      verdict.sentence = ReadLine(Dir() / "box/error");
      return !verdict.sentence.empty() || Status("box") == "running";
    });
    verdict.error = runs && verdict.sentence.empty() ? 0 : EIO;
    return verdict;
  }

  [[nodiscard]] std::vector<Operation> Operations();
  [[nodiscard]] World Look() const;
  void Reset(bool runs);
  void Sweep(const Operation& operation, const Fault& fault);
  [[nodiscard]] bool Round(const Operation& operation, const Fault& fault,
                           int step, const World& before, const World& after);
  [[nodiscard]] Verdict Work(const Operation& operation, const Fault& fault,
                             int step);
  void ReadAll() const;

  stdfs::path order_;
  unsigned seed_ = 0;
  std::mt19937 random_;
  std::map<std::string, int> steps_;
  std::map<std::string, std::set<std::string>> hit_;  // calls by fault
  int rounds_ = 0, done_ = 0, undone_ = 0;
};

std::vector<FaultMatrixTest::Operation> FaultMatrixTest::Operations() {
  return {
      {"mkdir", false, [this] { return Mkdir("new"); }},
      {"rmdir", false, [this] { return Rmdir("box"); }},
      {"rmdir trash", false, [this] { return Rmdir(".host/trash/old"); }, true},
      {"mv", false, [this] { return Rename("box", "other"); }},
      {"mv out of the trash", false,
       [this] { return Rename(".host/trash/old", "old"); }},
      {"start", false, [this] { return Start(); }},
      {"cpus", false, [this] { return Write("box/cpus", "2"); }},
      {"disk", false, [this] { return Write("box/disk", "96MiB"); }},
      {"ports", false,
       [this] { return Write("box/ports/3000", "8310", O_CREAT); }},
      {"snapshot", false, [this] { return Mkdir("box/snapshots/new"); }},
      {"revert", false, [this] { return Write("box/snapshot", "one!"); }},
      {"snapshot rmdir", false, [this] { return Rmdir("box/snapshots/one"); }},
      {"snapshot mv", false,
       [this] { return Rename("box/snapshots/one", "box/snapshots/first"); }},
      {"clone", false, [this] { return Mkdir("box/clones/copy"); }},
      {"commit", false, [this] { return Write("box/commit", "made"); }},
      {"factory-reset", false,
       [this] { return Write("box/status", "factory-reset"); }},
      {"network", false, [this] { return Mkdir(".host/networks/net"); }},
      {"additional disk", false,
       [this] { return Write(".host/disks/more", "8MiB", O_CREAT); }},
      {"defaults.yaml", false,
       [this] {
         return Write(".host/defaults.yaml",
                      ReadText(Host() / "defaults.yaml") + "# more");
       }},
      {"kill", true, [this] { return Write("box/status", "kill"); }},
      {"pause", true, [this] { return Write("box/status", "pause"); }},
      {"save", true, [this] { return Write("box/status", "save"); }},
      {"ports of one that runs", true,
       [this] { return Write("box/ports/3000", "8310", O_CREAT); }},
      {"disk of one that runs", true,
       [this] { return Write("box/disk", "96MiB"); }},
      {"snapshot of one that runs", true,
       [this] { return Mkdir("box/snapshots/new"); }},
      {"clone of one that runs", true,
       [this] { return Mkdir("box/clones/copy"); }},
  };
}

FaultMatrixTest::World FaultMatrixTest::Look() const {
  World world;
  std::string& text = world.seen;
  std::error_code dead;
  std::vector<stdfs::path> boxes;
  for (const auto& entry : stdfs::directory_iterator(Dir(), dead)) {
    if (entry.path().filename() != ".host") boxes.push_back(entry.path());
  }
  std::sort(boxes.begin(), boxes.end());
  for (const auto& box : boxes) {
    text += box.filename().string() + ":";
    for (const char* file : {"status", "cpus", "disk", "snapshot"}) {
      text += " " + ReadLine(box / file);
    }
    world.pending += ReadText(box / "pending");
    std::set<std::string> parts;
    for (const auto& tag : stdfs::directory_iterator(box / "snapshots", dead)) {
      parts.insert(fmt::format("; {} on '{}'", tag.path().filename().string(),
                               ReadLine(tag.path() / "parent")));
    }
    for (const auto& port : stdfs::directory_iterator(box / "ports", dead)) {
      parts.insert("; port " + port.path().filename().string());
    }
    for (const auto& part : parts) text += part;
    text += '\n';
  }
  for (const char* kind : {"trash", "images", "disks", "networks"}) {
    std::set<std::string> names;
    for (const auto& entry : stdfs::directory_iterator(Host() / kind, dead)) {
      names.insert(entry.path().filename());
    }
    text += fmt::format("{}: {}\n", kind, fmt::join(names, " "));
  }
  text += ReadText(Host() / "defaults.yaml").find("# more") == std::string::npos
              ? ""
              : "more\n";
  std::set<std::string> domains;
  std::istringstream list(Virsh({"list", "--all"}));
  for (std::string line; std::getline(list, line);) {
    std::istringstream words(line);
    std::string id, name, state;
    words >> id >> name >> state;
    domains.insert(name.substr(0, name.find('~')) + " " + state);
  }
  std::multiset<std::string> volumes;
  std::istringstream names(Numberless(sbxfs::World::Now().volumes));
  // How many layers a disk has is not seen from outside.
  for (std::string line; std::getline(names, line);) {
    if (line != "#.disk.#") volumes.insert(line);
  }
  text += fmt::format("libvirt: {}\n", fmt::join(domains, ", "));
  world.volumes = fmt::format("{}", fmt::join(volumes, " "));
  return world;
}

// What every operation begins with.
void FaultMatrixTest::Reset(bool runs) {
  Clear(Dir());
  (void)unlink((Host() / "images/made").c_str());
  (void)unlink((Host() / "disks/more").c_str());
  (void)rmdir((Host() / "networks/net").c_str());
  MakeBlank(Host());
  BlankGuests::Mkdir("old");
  ASSERT_EQ(Rmdir("old"), Verdict{});
  BlankGuests::Mkdir("box");
  ASSERT_EQ(Mkdir("box/snapshots/one"), Verdict{});
  ASSERT_EQ(Mkdir("box/snapshots/two"), Verdict{});
  if (runs) Boot("box");
}

// Every file of the sandbox, while a call hangs.
void FaultMatrixTest::ReadAll() const {
  std::error_code gone;
  for (auto file = stdfs::recursive_directory_iterator(Dir() / "box", gone);
       !gone && file != stdfs::recursive_directory_iterator();
       file.increment(gone)) {
    if (file->is_regular_file(gone)) (void)ReadText(file->path());
  }
}

Verdict FaultMatrixTest::Work(const Operation& operation, const Fault& fault,
                              int step) {
  std::ofstream(order_) << step << ' ' << fault.kind << ' ' << fault.scope
                        << '\n';
  auto working = std::async(std::launch::async, operation.work);
  if (std::string_view(fault.kind) == "hang") {
    // It hangs until the file goes.
    while (working.wait_for(10ms) != std::future_status::ready) {
      if (!ReadText(order_).starts_with("0 ")) continue;
      ReadAll();
      break;
    }
  } else {
    working.wait();
  }
  const std::string said = ReadLine(order_);
  stdfs::remove(order_);
  const Verdict verdict = working.get();
  const auto call = said.rfind(' ');
  if (said.starts_with("0 ") && call != std::string::npos) {
    hit_[fault.kind].insert(said.substr(call + 1));
    return {verdict.error, said.substr(call + 1) + ": " + verdict.sentence};
  }
  return {verdict.error, "not hit: " + verdict.sentence};
}

// False when the operation has fewer calls than that.
bool FaultMatrixTest::Round(const Operation& operation, const Fault& fault,
                            int step, const World& before, const World& after) {
  const std::string_view kind = fault.kind;
  const Verdict verdict = Work(operation, fault, step);
  const bool hit = !verdict.sentence.starts_with("not hit");
  const std::string what =
      fmt::format("{}, {} at call {} ({} {})", operation.name, kind, step,
                  verdict.error == 0 ? "0" : strerrorname_np(verdict.error),
                  verdict.sentence);
  std::error_code dead;
  const bool killed = !stdfs::exists(Host(), dead);
  if (killed) {
    EXPECT_EQ(kind, "kill") << what;
    mount_->Crash();
    const FaultsPreloaded faults;
    mount_->Start();
  }
  ExpectConnected();
  const bool said_done = verdict.error == 0 && !killed;
  // Of one that was cut off the volumes are the next sweep's, and what is in
  // config.yaml alone waits for the next start.
  const bool cut_off = killed || kind == "lost" || kind == "late";
  World now;
  const auto is = [&](const World& one) {
    return now.seen == one.seen &&
           (now.volumes == one.volumes || cut_off || operation.in_parts) &&
           (now.pending == one.pending || cut_off);
  };
  EXPECT_TRUE(Eventually([&] {
    now = Look();
    return is(after) || (!said_done && is(before));
  })) << what
      << "\nnow\n"
      << now.seen << now.volumes << now.pending << "\nbefore\n"
      << before.seen << before.volumes << "\nafter\n"
      << after.seen << after.volumes;
  const bool done = is(after);
  // Of what is gone nobody is told any more.
  if (!said_done && !killed && !(done && operation.in_parts)) {
    EXPECT_NE(verdict.sentence.find("Cannot "), std::string::npos) << what;
  }
  if (hit) {
    ++rounds_;
    ++(done ? done_ : undone_);
    if (done && !said_done && !cut_off) {
      std::printf("told of an error, but done: %s\n", what.c_str());
    }
  }
  if (now != before) Reset(operation.runs);
  return hit;
}

void FaultMatrixTest::Sweep(const Operation& operation, const Fault& fault) {
  Reset(operation.runs);
  const World before = Look();
  // Undisturbed, for what it comes to and how many calls that takes.
  std::ofstream(order_) << 1000000 << ' ' << fault.kind << ' ' << fault.scope
                        << '\n';
  const Verdict undisturbed = operation.work();
  const int calls = 1000000 - std::stoi(ReadText(order_));
  stdfs::remove(order_);
  ASSERT_EQ(undisturbed, Verdict{}) << operation.name;
  const World after = Look();
  ASSERT_NE(before.seen + before.volumes, after.seen + after.volumes)
      << operation.name;
  Reset(operation.runs);
  steps_[fmt::format("{} ({})", operation.name, fault.scope)] = calls;
  if (!LongRun()) {
    if (calls == 0) return;
    const int step = std::uniform_int_distribution<int>(1, calls)(random_);
    (void)Round(operation, fault, step, before, after);
    return;
  }
  // Others make calls, too: of some steps there is none.
  for (int step = 1; step <= calls + 2 && !HasFatalFailure(); ++step) {
    if (!Round(operation, fault, step, before, after) && step > calls) return;
  }
}

// What can go wrong is in tests/support/faults/calls.h; what is local to
// libvirt's library, or frees something, is not.
TEST_F(FaultMatrixTest, EveryCallHasASeam) {
  const std::string seams =
      ReadText(std::string(SBXFS_SOURCE_DIR) + "/tests/support/faults/calls.h");
  const Ended symbols =
      RunProgram({"nm", "-D", "--undefined-only", SBXFS_BIN_DIR "/sbxfs"});
  ASSERT_EQ(symbols.status, 0) << symbols.err;
  static const std::regex kLocal(
      "vir(Event|Get|Reset|SetErr|Typed).*|vir.*(Free|Ref|GetName|"
      "GetUUIDString|GetConnect|CloseCallback|DeregisterAny|Close)|"
      "virStream(New|Abort)|virConnect(IsAlive|GetType|SetKeepAlive)");
  int calls = 0;
  for (const std::string_view line : Split(symbols.out, '\n')) {
    std::string name(line.substr(line.rfind(' ') + 1));
    name = name.substr(0, name.find('@'));
    if (!name.starts_with("vir") || std::regex_match(name, kLocal)) continue;
    ++calls;
    EXPECT_NE(seams.find("(" + name + ")"), std::string::npos) << name;
  }
  EXPECT_GT(calls, 100);
}

TEST_F(FaultMatrixTest, EachOperationIsDoneOrUndone) {
  const char* only = std::getenv("SBXFS_FAULT_OPERATION");
  const char* kind = std::getenv("SBXFS_FAULT_KIND");
  for (const Operation& operation : Operations()) {
    if (only != nullptr && operation.name != std::string_view(only)) continue;
    std::vector<Fault> faults(kFaults.begin(), kFaults.end());
    if (!LongRun() && kind == nullptr) {
      // Connections that break are HealingTest's, killed daemons
      // LayersFaultTest's.
      std::erase_if(faults, [](const Fault& fault) {
        const std::string_view what = fault.kind;
        return what == "lost" || what == "late" || what == "kill";
      });
      std::shuffle(faults.begin(), faults.end(), random_);
      faults.resize(1);
    }
    for (const Fault& fault : faults) {
      if (kind != nullptr && fault.kind != std::string_view(kind)) continue;
      Sweep(operation, fault);
      if (HasFatalFailure()) return;
    }
  }
  for (const auto& [name, steps] : steps_) {
    std::printf("%4d calls of %s\n", steps, name.c_str());
  }
  std::set<std::string> calls;
  for (const auto& [name, those] : hit_) {
    calls.insert(those.begin(), those.end());
    std::printf("%4zu calls had: %s\n", those.size(), name.c_str());
  }
  std::printf(
      "%d rounds (SBXFS_FAULT_SEED %u): %d done, %d undone, %zu calls of "
      "libvirt and the C "
      "library\n",
      rounds_, seed_, done_, undone_, calls.size());
}

}  // namespace
}  // namespace sbxfs
