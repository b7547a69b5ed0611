#ifndef SBXFS_BACKEND_UTIL_UNDO_H_
#define SBXFS_BACKEND_UTIL_UNDO_H_

#include <functional>
#include <utility>
#include <vector>

namespace sbxfs {

// Steps to take back, last first, unless Keep was called.
class Undo {
 public:
  Undo() = default;
  ~Undo();
  Undo(const Undo&) = delete;
  Undo& operator=(const Undo&) = delete;
  void Add(std::function<void()> step) { steps_.push_back(std::move(step)); }
  void Keep() { steps_.clear(); }

 private:
  std::vector<std::function<void()>> steps_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_UNDO_H_
