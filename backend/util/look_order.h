#ifndef SBXFS_BACKEND_UTIL_LOOK_ORDER_H_
#define SBXFS_BACKEND_UTIL_LOOK_ORDER_H_

#include <atomic>
#include <cstdint>

namespace sbxfs {

// Of several threads that look at the same thing, each of which keeps what it
// found in one place: who began to look earlier knows less. Thread-safe.
class LookOrder {
 public:
  // Before looking.
  [[nodiscard]] uint64_t Begin() { return ++begun_; }
  // With that place locked: whether what was found is to be kept there, since
  // nobody has kept what he looked for later.
  [[nodiscard]] bool Keeps(uint64_t number) {
    if (number < kept_) return false;
    kept_ = number;
    return true;
  }

 private:
  std::atomic<uint64_t> begun_ = 0;
  std::atomic<uint64_t> kept_ = 0;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_LOOK_ORDER_H_
