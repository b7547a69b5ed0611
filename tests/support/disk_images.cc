#include "tests/support/disk_images.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <random>
#include <sstream>

#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

namespace stdfs = std::filesystem;

std::string Line(const FileFacts& facts, const std::string& content) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(
      facts.modified.time_since_epoch());
  // The size of a directory is its file system's own affair.
  return fmt::format("{:o} {} {}:{} {} {} {:x}", facts.mode,
                     S_ISDIR(facts.mode) ? 0 : facts.links, facts.uid,
                     facts.gid, S_ISDIR(facts.mode) ? 0 : facts.size,
                     seconds.count(), std::hash<std::string>()(content));
}

std::string Whole(const stdfs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string Whole(FileTree& tree, const std::string& path) {
  const auto file = tree.Open(path, O_RDONLY, 0);
  std::string all;
  for (;;) {
    const std::string part = file->Read(all.size(), 100'000);
    all += part;
    if (part.size() < 100'000) return all;
  }
}

void AddLines(FileTree& tree, const std::string& path, FileLines& lines) {
  for (const auto& [name, facts] : tree.List(path)) {
    if (path.empty() && name == "lost+found") continue;
    const std::string at = path.empty() ? name : path + '/' + name;
    std::string content;
    if (S_ISREG(facts.mode)) content = Whole(tree, at);
    if (S_ISLNK(facts.mode)) content = tree.Target(at);
    lines[at] = Line(facts, content);
    EXPECT_EQ(Line(tree.Look(at), content), lines[at]) << at;
    if (S_ISDIR(facts.mode)) AddLines(tree, at, lines);
  }
}

void WriteFile(const stdfs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string Noise(size_t size) {
  std::mt19937 random(7);
  std::string bytes;
  while (bytes.size() < size) bytes += static_cast<char>(random());
  return bytes;
}

}  // namespace

void Sh(const std::string& command) {
  FILE* const pipe = popen(("{ " + command + "\n} 2>&1").c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string said;
  char part[4096];
  while (fgets(part, sizeof part, pipe) != nullptr) said += part;
  EXPECT_EQ(pclose(pipe), 0) << command << '\n' << said;
}

ReadFileAt ReadOf(std::vector<stdfs::path> paths) {
  return [paths = std::move(paths)](size_t file, uint64_t offset, size_t size) {
    const UniqueFd fd(open(paths[file].c_str(), O_RDONLY | O_CLOEXEC));
    std::string bytes(size, '\0');
    const ssize_t got =
        pread(fd.Get(), bytes.data(), size, static_cast<off_t>(offset));
    bytes.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return bytes;
  };
}

ChainFile ChainFileOf(const stdfs::path& path) {
  return {path.filename(), stdfs::file_size(path),
          path.extension() == ".raw" ? "raw" : "qcow2"};
}

FileLines LinesOf(const stdfs::path& directory) {
  FileLines lines;
  for (const auto& entry : stdfs::recursive_directory_iterator(directory)) {
    struct stat st {};
    EXPECT_EQ(lstat(entry.path().c_str(), &st), 0);
    FileFacts facts;
    facts.mode = st.st_mode;
    facts.links = st.st_nlink;
    facts.uid = st.st_uid;
    facts.gid = st.st_gid;
    facts.size = static_cast<uint64_t>(st.st_size);
    facts.modified = std::chrono::system_clock::from_time_t(st.st_mtime);
    std::string content;
    if (S_ISREG(st.st_mode)) content = Whole(entry.path());
    if (S_ISLNK(st.st_mode)) content = stdfs::read_symlink(entry.path());
    lines[entry.path().lexically_relative(directory)] = Line(facts, content);
  }
  return lines;
}

FileLines LinesOf(FileTree& tree) {
  FileLines lines;
  AddLines(tree, "", lines);
  return lines;
}

std::string Differences(const FileLines& got, const FileLines& wanted) {
  std::string differences;
  const auto add = [&](char sign, const FileLines& these,
                       const FileLines& those) {
    for (const auto& [path, line] : these) {
      const auto other = those.find(path);
      if (other == those.end() || other->second != line) {
        differences += fmt::format("{}{}: {}\n", sign, path, line);
      }
    }
  };
  add('-', wanted, got);
  add('+', got, wanted);
  return differences;
}

void DiskImages::SetUp() {
  std::string name = testing::TempDir() + "/sbxfs-disk.XXXXXX";
  dir_ = mkdtemp(name.data());
}

void DiskImages::MakeSource() const {
  const stdfs::path source = Source();
  stdfs::create_directories(source / "etc/deep/er/and/deeper");
  stdfs::create_directories(source / "many");
  WriteFile(source / "etc/hostname", "box\n");
  WriteFile(source / "etc/deep/er/and/deeper/end", "the end");
  WriteFile(source / "empty", "");
  WriteFile(source / "sixty", std::string(60, 's'));
  WriteFile(source / "hundred", std::string(100, 'h'));
  WriteFile(source / "noise", Noise(3'000'000));
  WriteFile(source / "name with \xff and\nnewline", "x");
  WriteFile(source / "holes", "begin");
  {
    const UniqueFd fd(open((source / "holes").c_str(), O_WRONLY | O_CLOEXEC));
    EXPECT_EQ(pwrite(fd.Get(), "middle", 6, 5'000'000), 6);
    // mkfs.ext4 -O inline_data forgets a hole at the end.
    EXPECT_EQ(pwrite(fd.Get(), "end", 3, 9'999'996), 3);
  }
  // More than a directory has in a block, so that it becomes a tree.
  for (int i = 0; i < 1500; ++i) {
    WriteFile(
        source / "many" / fmt::format("a-file-with-a-rather-long-name-{}", i),
        i % 100 == 0 ? fmt::format("{}", i) : "");
  }
  stdfs::create_symlink("etc/hostname", source / "short-link");
  stdfs::create_symlink(std::string(900, 'l'), source / "long-link");
  stdfs::create_hard_link(source / "hundred", source / "etc/same");
  EXPECT_EQ(mkfifo((source / "fifo").c_str(), 0640), 0);
  EXPECT_EQ(chmod((source / "sixty").c_str(), 04751), 0);
  EXPECT_EQ(chmod((source / "etc").c_str(), 01777), 0);
  if (getuid() == 0) {
    EXPECT_EQ(lchown((source / "sixty").c_str(), 1234, 100'000), 0);
    EXPECT_EQ(chmod((source / "sixty").c_str(), 04751), 0);
  }
  const timespec times[2] = {{1'000'000'000, 0}, {1'234'567'890, 0}};
  EXPECT_EQ(utimensat(AT_FDCWD, (source / "empty").c_str(), times, 0), 0);
}

void DiskImages::TearDown() {
  if (!dir_.empty()) stdfs::remove_all(dir_);
}

void DiskImages::MakeExt(const std::string& name, const std::string& options,
                         int mebi) const {
  if (!stdfs::exists(Source())) MakeSource();
  Sh(
      fmt::format("cd {} && rm -f {} && truncate -s {}M {} && mkfs.ext4 -q -F "
                  "-d source {} {}",
                  dir_.string(), name, mebi, name, options, name));
}

}  // namespace sbxfs
