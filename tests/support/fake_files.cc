#include "tests/support/fake_files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <vector>

namespace sbxfs {

// One guest's.
class FakeTree : public FileTree {
 public:
  FakeTree(FakeFiles& files, FilesOf whose)
      : files_(files), whose_(std::move(whose)) {}

  using File = FakeFiles::File;
  template <typename F>
  auto With(F&& work) {
    MutexLock lock(files_.mutex_);
    return work(files_.places_[whose_]);
  }
  static FileFacts Facts(const File& file) {
    FileFacts facts = file.facts;
    facts.size = file.bytes.size();
    facts.own = facts.uid == 1000;
    facts.own_group = facts.gid == 1000;
    return facts;
  }

  FileFacts Look(const std::string& path) override {
    return With([&](FakeFiles::Files& all) { return Facts(*At(all, path)); });
  }
  std::vector<Entry> List(const std::string& path) override {
    return With([&](FakeFiles::Files& all) {
      if (!S_ISDIR(At(all, path)->facts.mode)) throw Error(ENOTDIR, "no dir");
      std::vector<Entry> entries;
      for (const auto& [at, file] : all) {
        if (at.empty() || DirOf(at) != path) continue;
        entries.push_back({at.substr(at.rfind('/') + 1), Facts(*file)});
      }
      return entries;
    });
  }
  std::string Target(const std::string& path) override {
    return With([&](FakeFiles::Files& all) { return At(all, path)->bytes; });
  }
  FileSpace Space(const std::string& path) override {
    return With([&](FakeFiles::Files& all) {
      (void)At(all, path);
      return FileSpace{0, 900, 400, 300, 70, 60};  // blocks of no size
    });
  }
  std::unique_ptr<Opened> Open(const std::string& path, int flags,
                               mode_t mode) override;
  void Set(const std::string& path, const FileChanges& changes) override {
    With([&](FakeFiles::Files& all) {
      File& file = *At(all, path);
      if (changes.mode) {
        file.facts.mode = (file.facts.mode & S_IFMT) | *changes.mode;
      }
      if (changes.uid || changes.gid) throw Error(EACCES, "only root may");
      if (changes.size) file.bytes.resize(*changes.size);
      if (changes.read) file.facts.read = *changes.read;
      if (changes.modified) file.facts.modified = *changes.modified;
    });
  }
  void MakeDir(const std::string& path, mode_t mode) override {
    With([&](FakeFiles::Files& all) { Add(all, path, S_IFDIR | mode, ""); });
  }
  void MakeLink(const std::string& path, const std::string& target) override {
    With(
        [&](FakeFiles::Files& all) { Add(all, path, S_IFLNK | 0777, target); });
  }
  void MakeName(const std::string& path, const std::string& to) override {
    With([&](FakeFiles::Files& all) {
      if (all.contains(to)) throw Error(EEXIST, "there is one");
      all[to] = At(all, path);
    });
  }
  void Remove(const std::string& path) override {
    With([&](FakeFiles::Files& all) {
      if (S_ISDIR(At(all, path)->facts.mode)) throw Error(EISDIR, "a dir");
      all.erase(path);
    });
  }
  void RemoveDir(const std::string& path) override {
    With([&](FakeFiles::Files& all) {
      (void)At(all, path);
      const auto next = all.upper_bound(path + '/');
      if (next != all.end() && next->first.starts_with(path + '/')) {
        throw Error(ENOTEMPTY, "not empty");
      }
      all.erase(path);
    });
  }
  void Rename(const std::string& path, const std::string& to) override {
    With([&](FakeFiles::Files& all) {
      (void)At(all, path);
      FakeFiles::Files moved;
      for (const auto& [at, file] : all) {
        if (at == path || at.starts_with(path + '/')) {
          moved[to + at.substr(path.size())] = file;
        }
      }
      std::erase_if(all, [&](const auto& one) {
        return one.first == path || one.first.starts_with(path + '/');
      });
      for (auto& [at, file] : moved) all[at] = file;
    });
  }

 private:
  static std::string DirOf(const std::string& path) {
    const auto slash = path.rfind('/');
    return slash == std::string::npos ? "" : path.substr(0, slash);
  }
  static FakeFiles::FilePtr At(FakeFiles::Files& all, const std::string& path) {
    const auto found = all.find(path);
    if (found == all.end()) throw Error(ENOENT, "there is none");
    return found->second;
  }
  static FakeFiles::FilePtr Add(FakeFiles::Files& all, const std::string& path,
                                mode_t mode, const std::string& bytes) {
    if (all.contains(path)) throw Error(EEXIST, "there is one");
    if (!S_ISDIR(At(all, DirOf(path))->facts.mode)) {
      throw Error(ENOTDIR, "no dir");
    }
    auto file = std::make_shared<File>();
    file->facts.mode = mode;
    file->facts.uid = file->facts.gid = 1000;
    file->bytes = bytes;
    all[path] = file;
    return file;
  }

  FakeFiles& files_;
  const FilesOf whose_;
};

namespace {

class FakeOpened : public FileTree::Opened {
 public:
  FakeOpened(FakeTree tree, FakeFiles::FilePtr file, int flags)
      : tree_(std::move(tree)), file_(std::move(file)), flags_(flags) {}
  std::string Read(uint64_t offset, size_t size) override {
    return tree_.With([&](auto&) {
      const auto at = std::min<size_t>(offset, file_->bytes.size());
      return file_->bytes.substr(at, size);
    });
  }
  void Write(uint64_t offset, const std::string& bytes) override {
    tree_.With([&](auto&) {
      std::string& all = file_->bytes;
      if ((flags_ & O_APPEND) != 0) offset = all.size();
      if (all.size() < offset + bytes.size()) {
        all.resize(offset + bytes.size());
      }
      all.replace(offset, bytes.size(), bytes);
    });
  }
  FileFacts Look() override {
    return tree_.With([&](auto&) { return FakeTree::Facts(*file_); });
  }
  void Resize(uint64_t size) override {
    tree_.With([&](auto&) { file_->bytes.resize(size); });
  }

 private:
  FakeTree tree_;
  const FakeFiles::FilePtr file_;
  const int flags_;
};

}  // namespace

std::unique_ptr<FileTree::Opened> FakeTree::Open(const std::string& path,
                                                 int flags, mode_t mode) {
  const auto file = With([&](FakeFiles::Files& all) {
    if ((flags & O_CREAT) != 0 &&
        (!all.contains(path) || (flags & O_EXCL) != 0)) {
      return Add(all, path, S_IFREG | mode, "");
    }
    return At(all, path);
  });
  if ((file->facts.mode & 0400) == 0 && (flags & O_ACCMODE) != O_WRONLY) {
    throw Error(EACCES, "not for you");
  }
  if ((flags & O_TRUNC) != 0) {
    With([&](auto&) { file->bytes.clear(); });
  }
  return std::make_unique<FakeOpened>(*this, file, flags);
}

FakeFiles::FakeFiles() : thread_([this] { Loop(); }) {}
FakeFiles::~FakeFiles() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
  }
  changed_.NotifyAll();
  thread_.join();
}

void FakeFiles::Put(const FilesOf& whose, const std::string& path, mode_t mode,
                    const std::string& bytes, uid_t owner) {
  auto file = std::make_shared<File>();
  file->facts.mode = mode;
  file->facts.uid = file->facts.gid = owner;
  file->bytes = bytes;
  MutexLock lock(mutex_);
  auto& files = places_[whose];
  auto& root = files[""];
  if (!root) {
    root = std::make_shared<File>();
    root->facts.mode = S_IFDIR | 0755;
  }
  files[path] = std::move(file);
}

std::optional<FakeFiles::File> FakeFiles::Get(const FilesOf& whose,
                                              const std::string& path) {
  MutexLock lock(mutex_);
  const auto& files = places_[whose];
  const auto found = files.find(path);
  if (found == files.end()) return std::nullopt;
  return *found->second;
}

void FakeFiles::Refuse(std::optional<Error> error) {
  MutexLock lock(mutex_);
  refused_.reset();
  if (error) refused_.emplace(*error);
}
void FakeFiles::Hold() {
  MutexLock lock(mutex_);
  held_ = true;
}
void FakeFiles::Release() {
  {
    MutexLock lock(mutex_);
    held_ = false;
  }
  changed_.NotifyAll();
}
std::size_t FakeFiles::Waiting() {
  MutexLock lock(mutex_);
  return jobs_.size();
}

void FakeFiles::Run(const FilesOf& whose, Job job) {
  {
    MutexLock lock(mutex_);
    jobs_.emplace_back(whose, std::move(job));
  }
  changed_.NotifyAll();
}

void FakeFiles::Loop() {
  while (true) {
    std::pair<FilesOf, Job> next;
    std::optional<Error> refused;
    {
      MutexLock lock(mutex_);
      while (!stop_ && (jobs_.empty() || held_)) changed_.Wait(mutex_);
      if (stop_ && jobs_.empty()) return;
      next = std::move(jobs_.front());
      jobs_.pop_front();
      if (refused_) refused.emplace(*refused_);
    }
    if (!next.second.wanted()) continue;
    if (refused) {
      next.second.fail(*refused);
      continue;
    }
    FakeTree tree(*this, next.first);
    next.second.work(tree);
  }
}

}  // namespace sbxfs
