#include "backend/image/download.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <exception>
#include <new>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

constexpr int kMaxRedirects = 10;
constexpr long kConnectSeconds = 30;
constexpr long kStallSeconds = 60;

struct CurlDeleter {
  void operator()(CURL* curl) const { curl_easy_cleanup(curl); }
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};
using CurlPtr = std::unique_ptr<CURL, CurlDeleter>;
using UrlPtr = std::unique_ptr<CURLU, CurlDeleter>;

std::string Part(CURLU* url, CURLUPart part) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, 0) != CURLUE_OK) return "";
  std::string out = text;
  curl_free(text);
  return out;
}

// What a URL is to us.
struct Address {
  std::string shown;  // for sentences: without user and password
  bool allowed = false;
  bool loopback = false;
};
Address Parse(const std::string& text) {
  const UrlPtr url(curl_url());
  if (!url) throw std::bad_alloc();
  if (curl_url_set(url.get(), CURLUPART_URL, text.c_str(), 0) != CURLUE_OK) {
    return {text, false, false};
  }
  const std::string scheme = Part(url.get(), CURLUPART_SCHEME);
  const std::string host = Part(url.get(), CURLUPART_HOST);
  curl_url_set(url.get(), CURLUPART_USER, nullptr, 0);
  curl_url_set(url.get(), CURLUPART_PASSWORD, nullptr, 0);
  Address address{Part(url.get(), CURLUPART_URL), false, false};
  address.loopback =
      scheme == "http" && (host == "127.0.0.1" || host == "localhost");
  address.allowed = scheme == "https" || address.loopback;
  return address;
}

[[noreturn]] void Fail(int error, const std::string& shown,
                       std::string_view reason) {
  throw Error(error, fmt::format("Cannot fetch '{}': {}", shown, reason));
}

// One request, and what its callbacks need to know.
class Transfer {
 public:
  Transfer(const std::string& url, const Address& address,
           const std::function<void(std::string_view)>& sink,
           const std::function<bool(uint64_t, uint64_t)>& progress);

  // Where to go on, or empty when all of it was fetched.
  [[nodiscard]] std::string Perform();

 private:
  static size_t OnBody(char* bytes, size_t size, size_t count, void* self);
  static int OnProgress(void* self, curl_off_t total, curl_off_t now,
                        curl_off_t, curl_off_t);
  template <typename T>
  void Set(CURLoption option, T value) {
    if (curl_easy_setopt(curl_.get(), option, value) != CURLE_OK) {
      Fail(EIO, shown_, "libcurl lacks a needed option");
    }
  }
  [[nodiscard]] long Status() const {
    long status = 0;
    curl_easy_getinfo(curl_.get(), CURLINFO_RESPONSE_CODE, &status);
    return status;
  }
  [[noreturn]] void FailStatus(long status) const;
  [[noreturn]] void FailTransfer(CURLcode code) const;

  const std::string& shown_;
  const std::function<void(std::string_view)>& sink_;
  const std::function<bool(uint64_t, uint64_t)>& progress_;
  CurlPtr curl_;
  char message_[CURL_ERROR_SIZE] = "";
  uint64_t received_ = 0;
  std::exception_ptr thrown_;  // by a callback: libcurl is C
  bool cancelled_ = false;
};

Transfer::Transfer(const std::string& url, const Address& address,
                   const std::function<void(std::string_view)>& sink,
                   const std::function<bool(uint64_t, uint64_t)>& progress)
    : shown_(address.shown),
      sink_(sink),
      progress_(progress),
      curl_(curl_easy_init()) {
  if (!curl_) throw std::bad_alloc();
  Set(CURLOPT_ERRORBUFFER, message_);
  Set(CURLOPT_URL, url.c_str());
  Set(CURLOPT_PROTOCOLS_STR, address.loopback ? "http" : "https");
  // No proxy is asked for what is on this machine.
  if (address.loopback) Set(CURLOPT_PROXY, "");
  Set(CURLOPT_USERAGENT, "sbxfs/" SBXFS_VERSION);
  Set(CURLOPT_FAILONERROR, 1L);
  Set(CURLOPT_NOSIGNAL, 1L);
  Set(CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  Set(CURLOPT_LOW_SPEED_LIMIT, 1L);
  Set(CURLOPT_LOW_SPEED_TIME, kStallSeconds);
  Set(CURLOPT_WRITEFUNCTION, &OnBody);
  Set(CURLOPT_WRITEDATA, this);
  Set(CURLOPT_NOPROGRESS, 0L);
  Set(CURLOPT_XFERINFOFUNCTION, &OnProgress);
  Set(CURLOPT_XFERINFODATA, this);
}

size_t Transfer::OnBody(char* bytes, size_t size, size_t count, void* self) {
  auto& transfer = *static_cast<Transfer*>(self);
  const size_t length = size * count;
  // A redirect's body is a note for people.
  if (transfer.Status() / 100 != 2) return length;
  try {
    transfer.received_ += length;
    transfer.sink_({bytes, length});
    return length;
  } catch (...) {
    transfer.thrown_ = std::current_exception();
    return length + 1;  // an error to libcurl, also for a length of 0
  }
}

int Transfer::OnProgress(void* self, curl_off_t total, curl_off_t now,
                         curl_off_t, curl_off_t) {
  auto& transfer = *static_cast<Transfer*>(self);
  const bool body = transfer.Status() / 100 == 2;
  try {
    transfer.cancelled_ =
        transfer.progress_ &&
        !transfer.progress_(body ? static_cast<uint64_t>(now) : 0,
                            body ? static_cast<uint64_t>(total) : 0);
  } catch (...) {
    transfer.thrown_ = std::current_exception();
  }
  return transfer.cancelled_ || transfer.thrown_ ? 1 : 0;
}

void Transfer::FailStatus(long status) const {
  switch (status) {
    case 404:
    case 410:
      Fail(ENOENT, shown_,
           fmt::format("the server has no such file (HTTP {}); correct the "
                       "image's location",
                       status));
    case 401:
    case 403:
      Fail(EACCES, shown_,
           fmt::format("the server does not let us have it (HTTP {}); "
                       "download it yourself and cp it to .host/images",
                       status));
    default:
      Fail(EIO, shown_,
           fmt::format("the server answers HTTP {}; try again later", status));
  }
}

void Transfer::FailTransfer(CURLcode code) const {
  const std::string why =
      message_[0] != '\0' ? message_ : curl_easy_strerror(code);
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
      Fail(EHOSTUNREACH, shown_,
           why + "; check the URL, and whether this machine is on the network");
    case CURLE_OPERATION_TIMEDOUT:
      Fail(EHOSTUNREACH, shown_, why + "; try again later");
    case CURLE_PEER_FAILED_VERIFICATION:
      Fail(EIO, shown_,
           fmt::format("the server's certificate is not trusted here ({}); "
                       "correct the URL, install the package ca-certificates, "
                       "or cp the image to .host/images",
                       why));
    case CURLE_OUT_OF_MEMORY:
      throw std::bad_alloc();
    default:
      Fail(EIO, shown_,
           fmt::format("the transfer broke after {} bytes: {}; try again",
                       received_, why));
  }
}

std::string Transfer::Perform() {
  const CURLcode code = curl_easy_perform(curl_.get());
  if (thrown_) std::rethrow_exception(thrown_);
  if (cancelled_) Fail(ECANCELED, shown_, "it was cancelled");
  const long status = Status();
  if (code == CURLE_HTTP_RETURNED_ERROR) FailStatus(status);
  if (code != CURLE_OK) FailTransfer(code);
  if (status / 100 == 2) return "";
  char* next = nullptr;
  curl_easy_getinfo(curl_.get(), CURLINFO_REDIRECT_URL, &next);
  if (next == nullptr) FailStatus(status);
  return next;
}

}  // namespace

void Download(const std::string& url,
              const std::function<void(std::string_view)>& sink,
              const std::function<bool(uint64_t, uint64_t)>& progress) {
  static const CURLcode initialized = curl_global_init(CURL_GLOBAL_DEFAULT);
  Address address = Parse(url);
  if (initialized != CURLE_OK) {
    Fail(EIO, address.shown, "libcurl cannot be initialised");
  }
  if (!address.allowed) {
    Fail(EINVAL, address.shown,
         "an image comes from an https:// URL, the absolute path of a file or "
         "a name in .host/images");
  }
  std::string next = url;
  for (int i = 0; i <= kMaxRedirects; ++i) {
    next = Transfer(next, address, sink, progress).Perform();
    if (next.empty()) return;
    const Address to = Parse(next);
    if (!to.allowed || (to.loopback && !address.loopback)) {
      Fail(EIO, address.shown,
           fmt::format("it redirects to '{}', which is no https URL; name "
                       "one that does not",
                       to.shown));
    }
    address = to;
  }
  Fail(EIO, address.shown,
       fmt::format("there are more than {} redirects", kMaxRedirects));
}

}  // namespace sbxfs
