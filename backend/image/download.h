#ifndef SBXFS_BACKEND_IMAGE_DOWNLOAD_H_
#define SBXFS_BACKEND_IMAGE_DOWNLOAD_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace sbxfs {

// Fetches an https URL (or, from this machine alone, http://127.0.0.1 or
// localhost) by libcurl. A redirect leads to another such URL, never from
// outside to this machine. `sink` gets the bytes in order and may throw, which
// ends the transfer with its exception. `progress` gets bytes so far and in
// all (0: unknown), once a second at least; false from it cancels (ECANCELED).
// Blocks; a transfer that stands still for a minute fails. Throws Error:
// EINVAL for another scheme, ENOENT (404), EACCES (401, 403), EHOSTUNREACH,
// EIO, each with cause and URL, which is shown without its password.
void Download(const std::string& url,
              const std::function<void(std::string_view)>& sink,
              const std::function<bool(uint64_t, uint64_t)>& progress);

// Digests of a text, as bytes: what tells one from another here, what UUIDs are
// made of, and what ssh knows a key by.
[[nodiscard]] std::string Ripemd160(std::string_view text);
[[nodiscard]] std::string Sha1(std::string_view text);
[[nodiscard]] std::string Sha256(std::string_view text);

// A running digest, "sha256:HEX"; sha384 and sha512 too. Not thread-safe.
class Digest {
 public:
  // Throws Error(EINVAL) for a digest of another form.
  explicit Digest(const std::string& expected);
  // A sha256 of which nothing is expected.
  Digest() : Digest("sha256:" + std::string(64, '0')) {}
  ~Digest();
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;
  void Add(std::string_view bytes);
  // "NAME:HEX". Ends the digest.
  [[nodiscard]] std::string Take();
  // Throws Error(EBADMSG) with both values; `what` stands in the sentence.
  // Ends the digest.
  void Check(const std::string& what);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_IMAGE_DOWNLOAD_H_
