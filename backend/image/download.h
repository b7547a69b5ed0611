#ifndef SBXFS_BACKEND_IMAGE_DOWNLOAD_H_
#define SBXFS_BACKEND_IMAGE_DOWNLOAD_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace sbxfs {

// Fetches an https (or, from this machine alone, http://127.0.0.1 or
// localhost) URL by libcurl, following redirects to https alone. `sink` gets
// the bytes in order and may throw, which ends the transfer with its
// exception. `progress` gets bytes so far and in all (0: unknown); false from
// it cancels (ECANCELED). Blocks. Throws Error: EINVAL for another scheme,
// ENOENT (404), EHOSTUNREACH, EIO, each with cause and URL.
void Download(const std::string& url,
              const std::function<void(std::string_view)>& sink,
              const std::function<bool(uint64_t, uint64_t)>& progress);

// A running digest, "sha256:HEX" or "sha512:HEX".
class Digest {
 public:
  // Throws Error(EINVAL) for a digest of another form.
  explicit Digest(const std::string& expected);
  ~Digest();
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;
  void Add(std::string_view bytes);
  // Throws Error(EBADMSG) with both values; `what` stands in the sentence.
  void Check(const std::string& what);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_IMAGE_DOWNLOAD_H_
