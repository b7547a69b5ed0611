#ifndef SBXFS_BACKEND_UTIL_ERROR_H_
#define SBXFS_BACKEND_UTIL_ERROR_H_

#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace sbxfs {

// The one exception that crosses layers: an errno for the caller's program
// and a sentence for the caller. The sentence reads `Cannot VERB 'noun':
// reason; what to do next`, without a full stop.
class Error : public std::system_error {
 public:
  // `error` is a positive errno, never ENOTCONN (it means a dead mount) and
  // never ENOSYS (the kernel would remember it).
  Error(int error, std::string sentence)
      : std::system_error(error, std::generic_category()),
        sentence_(std::move(sentence)) {}

  [[nodiscard]] int Errno() const { return code().value(); }
  // The sentence alone; std::system_error would append strerror to it.
  [[nodiscard]] const std::string& Sentence() const { return sentence_; }
  // The same failure of something larger, as a person knows it; `what` begins
  // its sentence.
  [[nodiscard]] Error As(std::string_view what) const {
    const auto reason = sentence_.find(": ");
    return {Errno(), std::string(what) + (reason == std::string::npos
                                              ? ": " + sentence_
                                              : sentence_.substr(reason))};
  }
  // As that where it is of the machine below, which speaks of volumes and
  // domains; what an asker did wrong has its own words.
  [[nodiscard]] Error Of(std::string_view what) const;
  [[nodiscard]] const char* what() const noexcept override {
    return sentence_.c_str();
  }

 private:
  std::string sentence_;
};

// What the exception being handled means to a caller: an Error as it is,
// bad_alloc as ENOMEM, anything else as EIO. To be called in a catch clause.
[[nodiscard]] Error CurrentError() noexcept;

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_ERROR_H_
