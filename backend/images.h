#ifndef SBXFS_BACKEND_IMAGES_H_
#define SBXFS_BACKEND_IMAGES_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "backend/core.h"
#include "backend/image/image_file.h"
#include "backend/spec/spec.h"
#include "backend/util/look_order.h"

namespace sbxfs {

// Base images: volumes `image.NAME` of the pool. Beside one that is being
// written stands a volume `partial.NAME` that names its writer, so that an
// upload cut short by a crash is never taken for an image: volumes cannot be
// renamed.
class Images {
 public:
  explicit Images(Core& core) : core_(core) {}

  struct Base {
    std::string name;
    std::string path;  // on the hypervisor, for an overlay's backing store
    ImageFacts facts;
  };

  // Blocks: lists the pool's images into the catalog's host.
  void Refresh();
  // Blocks: the first of `sources` that is in the pool.
  [[nodiscard]] std::optional<Base> Find(
      const std::vector<ImageSource>& sources, const std::string& arch);
  // Blocks: brings the first source that can be had into the pool, with its
  // digest checked. A file is read with the rights of `uid`. `progress` gets
  // words for people, `go_on` false ends it with ECANCELED.
  [[nodiscard]] Base Fetch(const std::vector<ImageSource>& sources,
                           const std::string& arch, uid_t uid,
                           const std::function<void(std::string)>& progress,
                           const std::function<bool()>& go_on);

  // Whether a volume is the mark beside an unfinished image.
  [[nodiscard]] static bool IsMark(const std::string& volume);
  // Blocks: among the pool's `volumes`, those of uploads that nobody goes on
  // with, in the order to delete them in. `now` is the hypervisor's time.
  [[nodiscard]] std::vector<std::string> Abandoned(
      const std::vector<std::string>& volumes, Time now);

  // Blocks: takes the name of a new image, has `make` make its volume, checks
  // that and makes it visible. EEXIST, EBUSY, EINVAL; nothing is left then.
  void Adopt(const std::string& name,
             const std::function<void(const std::string& volume)>& make);

  void Open(const std::string& name, Reply<std::shared_ptr<ImageReader>> reply);
  void Create(const std::string& name,
              Reply<std::shared_ptr<ImageWriter>> reply);
  void Remove(const std::string& name, Reply<Done> reply);

  // Told on a worker of an image that nobody uses and that is to go.
  std::function<void(const std::string& name)> before_remove;

  class Incoming;  // an image being written, blocking
  class Writer;    // the same, by workers
  class Reader;

 private:
  [[nodiscard]] Base Inspect(const std::string& name) EXCLUDES(mutex_);
  void TakeName(const std::string& name);
  void Discard(const std::string& name);
  // The volume is whole.
  void Show(const std::string& name, uint64_t size);
  [[nodiscard]] std::string FetchOne(
      const ImageSource& source, uid_t uid,
      const std::function<void(std::string)>& progress,
      const std::function<bool()>& go_on);

  Core& core_;
  Mutex mutex_;
  // What was learnt of an image, good while size and mtime are the same.
  std::map<std::string, std::pair<std::pair<uint64_t, Time>, ImageFacts>> facts_
      GUARDED_BY(mutex_);
  LookOrder looks_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_IMAGES_H_
