// Random snapshots, reverts, clones, removals, renames, commits, writes and
// resets, against a model that knows every byte of every state.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/guest_disk.h"
#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

constexpr int kBlocks = 6;
constexpr int kFirst = 16;  // the blank image itself is below
constexpr int kSandboxes = 10;

using Blocks = std::array<int, kBlocks>;

struct State {
  Blocks blocks{};
  std::string parent;
};

struct Model {
  Blocks now{};
  Blocks origin{};  // where a factory reset goes
  std::string stands_on;
  bool differs = true;  // from that, or another layer is between
  std::map<std::string, State> tags;
  bool on = false;
};

class LayersProperty : public BlankGuests {
 protected:
  int Random(int below) {
    return std::uniform_int_distribution<int>(0, below - 1)(random_);
  }
  const std::string& Pick(const std::vector<std::string>& from) {
    return from[static_cast<size_t>(Random(static_cast<int>(from.size())))];
  }
  std::string NewName(const char* stem) {
    return fmt::format("{}{}", stem, ++last_);
  }
  std::vector<std::string> Names() {
    std::vector<std::string> names;
    for (const auto& [name, model] : models_) names.push_back(name);
    return names;
  }
  std::vector<std::string> Tags(const Model& model) {
    std::vector<std::string> tags;
    for (const auto& [tag, state] : model.tags) tags.push_back(tag);
    return tags;
  }
  stdfs::path At(const std::string& path) { return Dir() / path; }

  void Step();
  void Write(const std::string& name, Model& model);
  void Take(const std::string& name, Model& model);
  void Revert(const std::string& name, Model& model, bool forced);
  void Drop(const std::string& name, Model& model);
  void Retag(const std::string& name, Model& model);
  void Clone(const std::string& name, Model& model);
  void Rename(const std::string& name);
  void Remove(const std::string& name);
  void Commit(const std::string& name, Model& model);
  void Reset(const std::string& name, Model& model);
  void Switch(const std::string& name, Model& model);
  void KeepUndo(Model& model);
  static void Forget(Model& model, const std::string& tag);

  void Check(const std::string& name, const Model& model);
  void CheckNoOrphans();
  [[nodiscard]] static std::string LayerPath(const std::string& name,
                                             const std::string& tag);
  static void ExpectBlocks(const std::string& path, const Blocks& blocks,
                           const std::string& what);

  std::mt19937 random_;
  int last_ = 0;
  std::map<std::string, Model> models_;
  std::string told_;
  std::string history_;
};

void LayersProperty::ExpectBlocks(const std::string& path, const Blocks& blocks,
                                  const std::string& what) {
  std::vector<std::string> command = {"qemu-io", "-r", "-U"};
  for (int i = 0; i < kBlocks; ++i) {
    command.emplace_back("-c");
    command.push_back(fmt::format("read -P {} {} 65536",
                                  blocks[static_cast<size_t>(i)],
                                  (kFirst + i) * 65536));
  }
  command.push_back(path);
  const Ended ended = RunProgram(command);
  EXPECT_EQ(ended.out.find("failed"), std::string::npos) << what << ended.out;
  EXPECT_NE(ended.out.find("65536/65536"), std::string::npos)
      << what << ended.err;
}

std::string LayersProperty::LayerPath(const std::string& name,
                                      const std::string& tag) {
  const std::string xml = Virsh({"snapshot-dumpxml", name, tag});
  const auto disk = xml.find("<source ", xml.find("<devices>"));
  const std::string source = xml.substr(disk, xml.find("/>", disk) - disk);
  const auto file = source.find("file='");
  if (file != std::string::npos) {
    return source.substr(file + 6, source.find('\'', file + 6) - file - 6);
  }
  const auto volume = source.find("volume='") + 8;
  return Virsh({"vol-path",
                source.substr(volume, source.find('\'', volume) - volume),
                "--pool", "sbxfs"});
}

void LayersProperty::Forget(Model& model, const std::string& tag) {
  const std::string parent = model.tags.at(tag).parent;
  model.tags.erase(tag);
  for (auto& [other, state] : model.tags) {
    if (state.parent == tag) state.parent = parent;
  }
  if (model.stands_on != tag) return;
  model.stands_on = parent;
  model.differs = true;
}

// The disk leaves for elsewhere: what it holds becomes the undo, in place of
// the one before.
void LayersProperty::KeepUndo(Model& model) {
  State undo{model.now, model.stands_on};
  if (model.tags.contains(".undo")) {
    if (undo.parent == ".undo") undo.parent = model.tags.at(".undo").parent;
    Forget(model, ".undo");
  }
  model.tags[".undo"] = undo;
}

void LayersProperty::Write(const std::string& name, Model& model) {
  const int block = Random(kBlocks);
  const int byte = 1 + Random(255);
  told_ = fmt::format("write {} {} {}", name, block, byte);
  Fill(name, kFirst + block, byte);
  model.now[static_cast<size_t>(block)] = byte;
  model.differs = true;
}

void LayersProperty::Take(const std::string& name, Model& model) {
  const std::string tag = NewName("t");
  told_ = fmt::format("take {} {}", name, tag);
  ASSERT_EQ(mkdir(At(name + "/snapshots/" + tag).c_str(), 0777), 0);
  model.tags[tag] = {model.now, model.stands_on};
  model.stands_on = tag;
  model.differs = false;
}

void LayersProperty::Revert(const std::string& name, Model& model,
                            bool forced) {
  if (model.tags.empty()) return;
  const std::string tag = Pick(Tags(model));
  told_ = fmt::format("revert {} {}{}", name, tag, forced ? "!" : "");
  const Verdict verdict =
      WriteText(At(name + "/snapshot"), tag + (forced ? "!\n" : "\n"));
  ASSERT_EQ(verdict, Verdict{}) << told_;
  if (!forced && model.stands_on == tag && !model.differs) return;
  const State target = model.tags.at(tag);
  std::string stands_on = tag;
  bool differs = false;
  if (!forced) {
    KeepUndo(model);
    // The one it went back to is no more: the undo is another now.
    if (tag == ".undo") {
      stands_on = target.parent;
      differs = true;
    }
  }
  model.stands_on = stands_on;
  model.differs = differs;
  model.now = target.blocks;
}

void LayersProperty::Drop(const std::string& name, Model& model) {
  if (model.tags.empty()) return;
  const std::string tag = Pick(Tags(model));
  told_ = fmt::format("drop {} {}", name, tag);
  const bool cloned =
      !stdfs::is_empty(At(name + "/snapshots/" + tag + "/clones"));
  const int result = rmdir(At(name + "/snapshots/" + tag).c_str());
  if (cloned) {
    ASSERT_EQ(result, -1) << told_;
    return;
  }
  // A clone in the trash holds it too; none is left there here.
  ASSERT_EQ(result, 0) << told_ << ReadText(At(name + "/error"));
  Forget(model, tag);
}

void LayersProperty::Retag(const std::string& name, Model& model) {
  if (model.tags.empty()) return;
  const std::string tag = Pick(Tags(model));
  const std::string fresh = NewName("n");
  told_ = fmt::format("retag {} {} {}", name, tag, fresh);
  ASSERT_EQ(rename(At(name + "/snapshots/" + tag).c_str(),
                   At(name + "/snapshots/" + fresh).c_str()),
            0)
      << told_ << ReadText(At(name + "/error"));
  model.tags[fresh] = model.tags.at(tag);
  model.tags.erase(tag);
  for (auto& [other, state] : model.tags) {
    if (state.parent == tag) state.parent = fresh;
  }
  if (model.stands_on == tag) model.stands_on = fresh;
}

void LayersProperty::Clone(const std::string& name, Model& model) {
  if (models_.size() >= kSandboxes) return;
  const std::string made = NewName("c");
  Model clone;
  std::string at = name + "/clones/";
  clone.now = model.now;
  if (!model.tags.empty() && Random(2) == 0) {
    const std::string tag = Pick(Tags(model));
    at = name + "/snapshots/" + tag + "/clones/";
    clone.now = model.tags.at(tag).blocks;
  } else if (model.on) {
    model.differs = true;
  }
  told_ = fmt::format("clone {}{}", at, made);
  ASSERT_EQ(mkdir(At(at + made).c_str(), 0700), 0)
      << told_ << ReadText(At(name + "/error"));
  clone.origin = clone.now;
  models_[made] = clone;
}

void LayersProperty::Rename(const std::string& name) {
  if (models_.at(name).on) return;
  const std::string fresh = NewName("r");
  told_ = fmt::format("rename {} {}", name, fresh);
  ASSERT_EQ(rename(At(name).c_str(), At(fresh).c_str()), 0) << told_;
  auto node = models_.extract(name);
  node.key() = fresh;
  models_.insert(std::move(node));
}

void LayersProperty::Remove(const std::string& name) {
  if (models_.size() < 3 || models_.at(name).on) return;
  told_ = "remove " + name;
  ASSERT_EQ(rmdir(At(name).c_str()), 0) << told_;
  ASSERT_EQ(rmdir((Host() / "trash" / name).c_str()), 0) << told_;
  models_.erase(name);
}

void LayersProperty::Commit(const std::string& name, Model& model) {
  const std::string image = NewName("i");
  told_ = fmt::format("commit {} {}", name, image);
  ASSERT_EQ(WriteText(At(name + "/commit"), image + "\n"), Verdict{}) << told_;
  ExpectBlocks(Virsh({"vol-path", "image." + image, "--pool", "sbxfs"}),
               model.now, told_);
  ASSERT_EQ(unlink((Host() / "images" / image).c_str()), 0) << told_;
  if (model.on) model.differs = true;
}

void LayersProperty::Reset(const std::string& name, Model& model) {
  told_ = "reset " + name;
  ASSERT_EQ(WriteText(At(name + "/status"), "factory-reset\n"), Verdict{})
      << told_;
  KeepUndo(model);
  model.stands_on.clear();
  model.now = model.origin;
}

void LayersProperty::Switch(const std::string& name, Model& model) {
  told_ = fmt::format("switch {} {}", name, model.on ? "off" : "on");
  if (model.on) {
    ASSERT_EQ(WriteText(At(name + "/status"), "kill\n"), Verdict{}) << told_;
  } else {
    // Two at a time: each costs memory.
    if (std::count_if(models_.begin(), models_.end(),
                      [](const auto& one) { return one.second.on; }) >= 2) {
      return;
    }
    Boot(name);
  }
  model.on = !model.on;
}

void LayersProperty::Step() {
  if (models_.empty() || (models_.size() < kSandboxes && Random(12) == 0)) {
    const std::string name = NewName("b");
    told_ = "make " + name;
    Mkdir(name);
    models_[name] = Model{};
    return;
  }
  const std::string name = Pick(Names());
  Model& model = models_.at(name);
  switch (Random(14)) {
    case 0:
    case 1:
    case 2:
      return Write(name, model);
    case 3:
    case 4:
      return Take(name, model);
    case 5:
    case 6:
      return Revert(name, model, Random(3) == 0);
    case 7:
      return Drop(name, model);
    case 8:
      return Retag(name, model);
    case 9:
      return Clone(name, model);
    case 10:
      return Random(2) == 0 ? Rename(name) : Remove(name);
    case 11:
      return Random(3) == 0 ? Commit(name, model) : Write(name, model);
    case 12:
      return Reset(name, model);
    default:
      return Switch(name, model);
  }
}

void LayersProperty::Check(const std::string& name, const Model& model) {
  const std::string when = fmt::format("{} after '{}': ", name, told_);
  for (int i = 0; i < kBlocks; ++i) {
    // Also flushes what a running QEMU keeps of it.
    EXPECT_TRUE(Holds(name, kFirst + i, model.now[static_cast<size_t>(i)]))
        << when << i;
    if (HasFailure()) return;
  }
  EXPECT_EQ(ReadLine(At(name + "/snapshot")), model.stands_on) << when;
  std::set<std::string> expected;
  for (const auto& [tag, state] : model.tags) {
    expected.insert(tag);
    EXPECT_EQ(ReadLine(At(fmt::format("{}/snapshots/{}/parent", name, tag))),
              state.parent)
        << when << tag;
  }
  std::set<std::string> shown;
  for (const auto& entry : stdfs::directory_iterator(At(name + "/snapshots"))) {
    shown.insert(entry.path().filename());
  }
  EXPECT_EQ(shown, expected) << when;
  std::istringstream lines(Virsh({"snapshot-list", name, "--name"}));
  std::set<std::string> virsh;
  for (std::string line; std::getline(lines, line);) {
    if (line.empty()) continue;
    const std::string tag = line.starts_with("~undo.") ? ".undo" : line;
    virsh.insert(tag);
    if (!expected.contains(tag)) continue;
    ExpectBlocks(LayerPath(name, line), model.tags.at(tag).blocks, when + tag);
  }
  EXPECT_EQ(virsh, expected) << when;
}

// Every layer is somebody's disk, a snapshot, an origin, or below one.
void LayersProperty::CheckNoOrphans() {
  std::set<std::string> needed;
  const std::string pool =
      stdfs::path(DiskPath(models_.begin()->first)).parent_path().string() +
      "/";
  auto need = [&](std::string path) {
    while (!path.empty() && needed.insert(path).second) {
      const Ended info =
          RunProgram({"qemu-img", "info", "-U", "--output=json", path});
      path = nlohmann::json::parse(info.out).value("backing-filename", "");
    }
  };
  for (const auto& [name, model] : models_) {
    need(DiskPath(name));
    std::istringstream lines(Virsh({"snapshot-list", name, "--name"}));
    for (std::string line; std::getline(lines, line);) {
      if (!line.empty()) need(LayerPath(name, line));
    }
    const std::string xml = Virsh({"dumpxml", name});
    const auto at = xml.find("originLayer>");
    if (at != std::string::npos) {
      need(pool + xml.substr(at + 12, xml.find('<', at) - at - 12));
    }
  }
  auto orphans = [&] {
    std::string found;
    std::istringstream lines(World::Now().volumes);
    for (std::string line; std::getline(lines, line);) {
      if (line.find(".disk") != std::string::npos &&
          !needed.contains(pool + line)) {
        found += line + '\n';
      }
    }
    return found;
  };
  EXPECT_TRUE(Eventually([&] { return orphans().empty(); })) << orphans();
}

TEST_F(LayersProperty, EveryByteOfEveryStateIsAsInTheModel) {
  const char* given = std::getenv("SBXFS_SEED");
  const unsigned seed =
      given != nullptr ? static_cast<unsigned>(std::atoi(given)) : 4;
  random_.seed(seed);
  const int steps = LongRun() ? 2000 : 60;
  for (int i = 0; i < steps; ++i) {
    Step();
    history_ += told_ + '\n';
    if (HasFailure()) break;
    // Each is looked at when it was touched; all of them now and then.
    const bool all = i % 100 == 99 || i == steps - 1;
    for (const auto& [name, model] : models_) {
      if (all || told_.find(" " + name) != std::string::npos) {
        Check(name, model);
      }
    }
    if (all) CheckNoOrphans();
    if (HasFailure()) break;
  }
  EXPECT_FALSE(HasFailure()) << "seed " << seed << ", after:\n" << history_;
}

}  // namespace
}  // namespace sbxfs
