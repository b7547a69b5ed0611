#include "tests/support/whole_tree.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <map>
#include <set>
#include <sstream>

#include "tests/support/guest_mount.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

// Every file of every sandbox, but those that are a mount's own, or change by
// themselves.
std::map<std::string, std::string> Tree(const stdfs::path& dir) {
  static const std::set<std::string> kOwn = {
      "error", "events", "usage",         "progress",   "README",
      "ready", "ip",     "provision.log", "domain.xml", "secrets"};
  std::map<std::string, std::string> tree;
  for (const auto& box : {dir, dir / ".host/trash"}) {
    for (const auto& entry : stdfs::directory_iterator(box)) {
      if (entry.path().filename() == ".host") continue;
      for (auto file = stdfs::recursive_directory_iterator(entry.path());
           file != stdfs::recursive_directory_iterator(); ++file) {
        if (kOwn.count(file->path().filename()) != 0) {
          if (file->is_directory()) file.disable_recursion_pending();
          continue;
        }
        if (file->is_directory()) continue;
        std::string text = ReadText(file->path());
        struct stat info {};
        (void)stat(file->path().c_str(), &info);
        text += fmt::format("\n{:o} {} {}", info.st_mode, info.st_uid,
                            info.st_size);
        // Where it is mounted is no part of what it says.
        for (size_t at; (at = text.find(dir.string())) != text.npos;) {
          text.replace(at, dir.string().size(), "DIR");
        }
        tree[stdfs::relative(file->path(), dir)] = text;
      }
    }
  }
  return tree;
}

}  // namespace

void ExpectAgreement(const stdfs::path& dir, const std::string& options) {
  GuestMount other(options);
  std::map<std::string, std::string> here;
  std::map<std::string, std::string> there;
  const bool same = Eventually([&] {
    here = Tree(dir);
    there = Tree(other.Dir());
    return here == there;
  });
  if (!same) {
    for (const auto& [file, text] : there) EXPECT_EQ(here[file], text) << file;
    for (const auto& [file, text] : here) {
      EXPECT_EQ(there.count(file), 1U) << file;
    }
  }
  // And both say what libvirt does.
  static const std::map<std::string, std::string> kStates = {
      {"running", "running"}, {"paused", "paused"}, {"shut off", "stopped"}};
  std::set<std::string> domains;
  std::istringstream names(Virsh({"list", "--all", "--name"}));
  for (std::string name; std::getline(names, name);) domains.insert(name);
  std::set<std::string> shown;
  for (const auto& [file, text] : there) {
    const stdfs::path path = file;
    if (path.filename() != "domain.xml" && path.filename() != "status") {
      continue;
    }
    const std::string xml =
        ReadText(other.Dir() / path.parent_path() / "domain.xml");
    const auto at = xml.find("<name>") + 6;
    const std::string name = xml.substr(at, xml.find('<', at) - at);
    shown.insert(name);
    std::string state = Virsh({"domstate", name});
    if (kStates.count(state) != 0) state = kStates.at(state);
    std::string status = text.substr(0, text.find('\n'));
    if (status == "saved" || status == "crashed") status = "stopped";
    if (state == "crashed") state = "stopped";
    EXPECT_EQ(status, state) << file;
  }
  EXPECT_EQ(shown, domains);
  other.Stop();
}

}  // namespace sbxfs
