#include <fmt/format.h>
#include <gcrypt.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <new>

#include "backend/image/download.h"
#include "backend/util/error.h"

namespace sbxfs {
namespace {

struct Algorithm {
  std::string_view name;
  int number;
  size_t digits;
};
constexpr std::array<Algorithm, 3> kAlgorithms = {
    Algorithm{"sha256", GCRY_MD_SHA256, 64},
    {"sha384", GCRY_MD_SHA384, 96},
    {"sha512", GCRY_MD_SHA512, 128}};

// As libgcrypt wants it, before its first use; once is enough.
void StartGcrypt() {
  static const bool started = [] {
    // Harmless when another user of it was first.
    if (gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P) == 0) {
      gcry_check_version(nullptr);
      gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
      gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
    }
    return true;
  }();
  (void)started;
}

std::string DigestOf(int algorithm, std::string_view text) {
  StartGcrypt();
  std::string digest(gcry_md_get_algo_dlen(algorithm), '\0');
  gcry_md_hash_buffer(algorithm, digest.data(), text.data(), text.size());
  return digest;
}

}  // namespace

std::string Ripemd160(std::string_view text) {
  return DigestOf(GCRY_MD_RMD160, text);
}

std::string Sha1(std::string_view text) { return DigestOf(GCRY_MD_SHA1, text); }

std::string Sha256(std::string_view text) {
  return DigestOf(GCRY_MD_SHA256, text);
}

struct Digest::State {
  gcry_md_hd_t handle = nullptr;
  Algorithm algorithm{};
  std::string expected;  // "NAME:HEX", in lower case
};

Digest::Digest(const std::string& expected)
    : state_(std::make_unique<State>()) {
  StartGcrypt();
  state_->expected = expected;
  std::transform(expected.begin(), expected.end(), state_->expected.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  const std::string_view text = state_->expected;
  const size_t colon = text.find(':');
  for (const Algorithm& algorithm : kAlgorithms) {
    if (text.substr(0, colon) != algorithm.name) continue;
    const std::string_view hex = text.substr(algorithm.name.size());
    if (hex.size() != 1 + algorithm.digits ||
        hex.find_first_not_of("0123456789abcdef", 1) != hex.npos) {
      throw Error(EINVAL,
                  fmt::format("Cannot accept '{}': a {} digest has {} "
                              "hexadecimal digits behind its colon",
                              expected, algorithm.name, algorithm.digits));
    }
    state_->algorithm = algorithm;
    if (gcry_md_open(&state_->handle, algorithm.number, 0) != 0) {
      throw std::bad_alloc();
    }
    return;
  }
  throw Error(EINVAL, fmt::format("Cannot accept '{}': a digest is written "
                                  "sha256:HEX, sha384:HEX or sha512:HEX",
                                  expected));
}

Digest::~Digest() { gcry_md_close(state_->handle); }

void Digest::Add(std::string_view bytes) {
  gcry_md_write(state_->handle, bytes.data(), bytes.size());
}

std::string Digest::Take() {
  const unsigned char* bytes =
      gcry_md_read(state_->handle, state_->algorithm.number);
  std::string actual = fmt::format("{}:", state_->algorithm.name);
  for (size_t i = 0; i < state_->algorithm.digits / 2; ++i) {
    actual += fmt::format("{:02x}", bytes[i]);
  }
  return actual;
}

void Digest::Check(const std::string& what) {
  const std::string actual = Take();
  if (actual == state_->expected) return;
  throw Error(EBADMSG,
              fmt::format("Cannot use '{}': its digest is {} and not {}; it "
                          "was changed on its way, or the digest is of "
                          "another version",
                          what, actual, state_->expected));
}

}  // namespace sbxfs
