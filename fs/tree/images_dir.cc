#include "fs/tree/images_dir.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <optional>

#include "backend/util/mutex.h"
#include "fs/attributes.h"
#include "fs/name.h"
#include "fs/process.h"

namespace sbxfs {
namespace {

// close(2) cannot be interrupted, and an image may have to be converted.
constexpr std::chrono::minutes kFinishLimit{10};

std::string Key(const Tree& tree, const std::string& name) {
  return tree.options.at + "images/" + name;
}

std::optional<Image> FindImage(const Tree& tree, const std::string& name) {
  for (const Image& image : tree.backend.GetHost()->images) {
    if (image.name == name) return image;
  }
  return std::nullopt;
}

class OpenImage : public OpenFile {
 public:
  explicit OpenImage(std::shared_ptr<ImageReader> reader)
      : reader_(std::move(reader)) {}
  void Read(const Caller&, uint64_t offset, size_t size,
            Reply<std::string> reply) override {
    reader_->Read(offset, size, std::move(reply));
  }

 private:
  const std::shared_ptr<ImageReader> reader_;
};

// An image that is there. A finished upload's node becomes one too, so that
// the file keeps its inode.
class ImageFile : public File {
 public:
  ImageFile(TreePtr tree, std::string name)
      : File(Key(*tree, name), ""),
        tree_(std::move(tree)),
        name_(std::move(name)) {}

  struct stat Stat(const Caller&) override {
    const auto image = FindImage(*tree_, name_);
    if (!image) {
      throw Error(ENOENT,
                  fmt::format("Cannot look at image '{}': it is gone", name_));
    }
    struct stat stat = OwnStat(*tree_, S_IFREG | 0644, image->modified);
    SetSize(stat, image->size);
    return stat;
  }

  void Open(const Caller&, int flags, Reply<OpenFilePtr> reply) override {
    if ((flags & O_ACCMODE) != O_RDONLY) {
      throw Error(EEXIST, fmt::format("Cannot write image '{}': there is one; "
                                      "rm it first",
                                      name_));
    }
    tree_->backend.OpenImage(
        name_, reply.Then<std::shared_ptr<ImageReader>>(
                   [](std::shared_ptr<ImageReader> reader) {
                     return std::make_shared<OpenImage>(std::move(reader));
                   }));
  }

  void Change(const Caller&, const Changes&, Reply<Done> reply) override {
    reply.Ok();  // cp -p; it keeps its own
  }

 protected:
  const TreePtr tree_;
  const std::string name_;
};

class UploadingFile : public ImageFile {
 public:
  UploadingFile(TreePtr tree, const Caller& maker, const std::string& name,
                std::shared_ptr<ImageWriter> writer)
      : ImageFile(std::move(tree), name),
        maker_(maker),
        writer_(std::move(writer)) {}

  struct stat Stat(const Caller& reader) override EXCLUDES(mutex_) {
    const auto writer = Writer();
    if (writer == nullptr || FindImage(*tree_, name_)) {
      return ImageFile::Stat(reader);
    }
    struct stat stat =
        OwnStat(*tree_, S_IFREG | 0644, std::chrono::system_clock::now());
    stat.st_uid = maker_.uid;
    stat.st_gid = maker_.gid;
    SetSize(stat, writer->Written());
    return stat;
  }

  void Open(const Caller& caller, int flags,
            Reply<OpenFilePtr> reply) override {
    if (!FindImage(*tree_, name_)) {
      throw Error(EBUSY, fmt::format("Cannot open image '{}': it is still "
                                     "being uploaded",
                                     name_));
    }
    ImageFile::Open(caller, flags, std::move(reply));
  }

  // The kernel may know this node long after it was closed; what the writer
  // leaves unfinished goes with the writer.
  void Ended() EXCLUDES(mutex_) {
    tree_->passing.Remove(Key(*tree_, ""), name_, this);
    std::shared_ptr<ImageWriter> writer;  // freed outside the lock
    MutexLock lock(mutex_);
    writer_.swap(writer);
  }
  std::shared_ptr<ImageWriter> Writer() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return writer_;
  }
  const std::string& name() const { return name_; }
  Tree& tree() { return *tree_; }

 private:
  const Caller maker_;
  Mutex mutex_;
  std::shared_ptr<ImageWriter> writer_ GUARDED_BY(mutex_);
};

class OpenUpload : public OpenFile,
                   public std::enable_shared_from_this<OpenUpload> {
 public:
  OpenUpload(std::shared_ptr<UploadingFile> file, const Caller& opener)
      : file_(std::move(file)),
        writer_(file_->Writer()),
        process_(ReadProcess(opener.pid).tgid) {}

  void Read(const Caller&, uint64_t, size_t, Reply<std::string>) override {
    throw Error(EBADF, fmt::format("Cannot read image '{}': it is still being "
                                   "uploaded",
                                   file_->name()));
  }

  void Write(const Caller&, uint64_t offset, std::string bytes, int,
             Reply<Done> reply) override EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      if (finished_) {
        throw Error(EPERM, fmt::format("Cannot write image '{}': it was synced "
                                       "and is complete",
                                       file_->name()));
      }
      dirty_ = true;
      verdict_.reset();
    }
    writer_->Write(offset, std::move(bytes), std::move(reply));
  }

  void Truncate(const Caller&, uint64_t size, Reply<Done> reply) override {
    if (size == writer_->Written()) {
      reply.Ok();
      return;
    }
    writer_->Truncate(size, std::move(reply));
  }

  void Flush(const Caller& caller, Reply<Done> reply) override
      EXCLUDES(mutex_) {
    const bool counts = Counts(caller);
    std::optional<Error> verdict;
    bool finish = false;
    {
      MutexLock lock(mutex_);
      verdict = verdict_;
      finish = !verdict && dirty_ && counts;
      if (finish) dirty_ = false;
    }
    if (verdict) {
      reply.Fail(std::move(*verdict));
    } else if (finish) {
      Finish(std::move(reply));
    } else {
      reply.Ok();
    }
  }

  std::optional<uint64_t> Staged(const Caller& caller) override
      EXCLUDES(mutex_) {
    const bool counts = Counts(caller);
    MutexLock lock(mutex_);
    if (verdict_ || !dirty_ || !counts) return std::nullopt;
    return writer_->Written();
  }

  void Release() override { file_->Ended(); }
  std::string HalfWritten() override { return file_->name(); }

  std::optional<uint64_t> Size() const override { return writer_->Written(); }

 private:
  bool Counts(const Caller& caller) const {
    return ReadProcess(caller.pid).tgid == process_ && !IsKilled(caller.pid);
  }

  void Finish(Reply<Done> reply) {
    Reply<Done> told([self = shared_from_this(), reply](Outcome<Done> outcome) {
      const auto* error = std::get_if<Error>(&outcome);
      {
        MutexLock lock(self->mutex_);
        if (error != nullptr) self->verdict_ = *error;
        self->finished_ = error == nullptr;
      }
      if (error == nullptr) self->file_->Ended();
      reply.Give(std::move(outcome));
    });
    file_->tree().Within(
        kFinishLimit, told,
        Error(ETIMEDOUT, fmt::format("Cannot finish image '{}': the hypervisor "
                                     "did not answer; try again",
                                     file_->name())));
    told.Guard([&] { writer_->Finish(told); });
  }

  const std::shared_ptr<UploadingFile> file_;
  const std::shared_ptr<ImageWriter> writer_;
  const pid_t process_;
  Mutex mutex_;
  bool dirty_ GUARDED_BY(mutex_) = false;
  bool finished_ GUARDED_BY(mutex_) = false;
  std::optional<Error> verdict_ GUARDED_BY(mutex_);
};

}  // namespace

struct stat ImagesDir::Stat(const Caller&) {
  const auto host = tree_->backend.GetHost();
  Time time = host->since;
  if (!host->images.empty()) time = Time();
  for (const Image& image : host->images) time = std::max(time, image.modified);
  return OwnStat(*tree_, S_IFDIR | 0755, time);
}

NodePtr ImagesDir::Lookup(const Caller&, const std::string& name) {
  if (auto uploading = tree_->passing.Find(key, name)) return uploading;
  if (!FindImage(*tree_, name)) return nullptr;
  return std::make_shared<ImageFile>(tree_, name);
}

std::vector<Dir::Entry> ImagesDir::List(const Caller&) {
  std::vector<Entry> entries;
  for (const Image& image : tree_->backend.GetHost()->images) {
    entries.push_back(
        {image.name, std::make_shared<ImageFile>(tree_, image.name)});
  }
  for (auto& entry : tree_->passing.List(key)) {
    if (!FindImage(*tree_, entry.name)) entries.push_back(std::move(entry));
  }
  return entries;
}

void ImagesDir::Unlink(const Caller& caller, const std::string& name,
                       Reply<Done> reply) {
  // `rm -r .host` was refused a file of it just before.
  CheckRefused(*tree_, caller, tree_->options.at, name);
  if (!FindImage(*tree_, name)) {
    throw Error(EBUSY, fmt::format("Cannot remove image '{}': it is still "
                                   "being uploaded; stop that",
                                   name));
  }
  tree_->backend.RemoveImage(caller, name, std::move(reply));
}

void ImagesDir::Create(const Caller& caller, const std::string& name, int,
                       Reply<Made> reply) {
  // An image may end in .yaml no more than a sandbox: it would be one to vim.
  const Name valid = Name::Parse("make image", name);
  tree_->backend.CreateImage(
      caller, valid.Text(),
      reply.Then<std::shared_ptr<ImageWriter>>(
          [tree = tree_, at = key, caller,
           name](std::shared_ptr<ImageWriter> writer) {
            auto file = std::make_shared<UploadingFile>(tree, caller, name,
                                                        std::move(writer));
            tree->passing.Add(at, name, file);
            return Made{file, std::make_shared<OpenUpload>(file, caller)};
          }));
}

}  // namespace sbxfs
