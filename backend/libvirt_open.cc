#include "backend/libvirt_open.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <cerrno>
#include <chrono>
#include <future>
#include <map>
#include <memory>
#include <string_view>
#include <thread>

#include "backend/connect_error.h"
#include "backend/util/error.h"
#include "backend/util/mutex.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

constexpr auto kOpenLimit = 20s;
// A daemon that was stopped for a day must not find thousands waiting.
constexpr int kMostHung = 64;

// One try, and whether it ended before it was left behind.
class Try {
 public:
  // Whether it was left behind.
  bool End() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    ended_ = true;
    return left_;
  }
  // Whether it goes on.
  bool Leave() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    left_ = true;
    return !ended_;
  }

 private:
  Mutex mutex_;
  bool ended_ GUARDED_BY(mutex_) = false;
  bool left_ GUARDED_BY(mutex_) = false;
};

// How many were left behind, by URI.
class LeftBehind {
 public:
  // Never destroyed: threads that were left behind end when they like.
  static LeftBehind& The() {
    static auto* left = new LeftBehind;
    return *left;
  }
  int Count(const std::string& uri) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    const auto found = count_.find(uri);
    return found == count_.end() ? 0 : found->second;
  }
  void Add(const std::string& uri, int more) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if ((count_[uri] += more) == 0) count_.erase(uri);
  }

 private:
  Mutex mutex_;
  std::map<std::string, int> count_ GUARDED_BY(mutex_);
};

// libvirt loses what an ssh complained of when that ended before it was asked
// anything ("client socket is closed").
bool SaysNothing() {
  const char* message = virGetLastErrorMessage();
  return message != nullptr &&
         std::string_view(message).find("client socket is closed") !=
             std::string_view::npos;
}

ConnPtr OpenNow(const std::string& uri, const std::string& given) {
  constexpr int kTries = 5;
  for (int tries = 1;; ++tries) {
    // No credentials are asked for: there is nobody to ask.
    virConnectAuth auth{};
    ConnPtr connection(
        virConnectOpenAuth(uri.empty() ? nullptr : uri.c_str(), &auth, 0));
    if (connection != nullptr) return connection;
    if (tries == kTries || !SaysNothing()) throw ConnectError(given);
  }
}

}  // namespace

// virConnectOpen to a hung daemon blocks for ever, before keepalive can be
// set, so it gets a thread that may be left behind.
ConnPtr OpenLibvirtConnection(const Route& route) {
  const std::string uri = route.uri.driver.empty() ? "" : route.uri.Text();
  auto fail = [&](std::string_view reason) {
    throw Error(
        ETIMEDOUT,
        fmt::format("Cannot connect to '{}': {}; the daemon there "
                    "hangs, or a firewall drops the packets",
                    route.given.empty() ? "libvirt" : route.given, reason));
  };
  if (LeftBehind::The().Count(uri) >= kMostHung) {
    fail(fmt::format("{} earlier tries still wait for an answer", kMostHung));
  }
  auto attempt = std::make_shared<Try>();
  auto promise = std::make_shared<std::promise<ConnPtr>>();
  auto future = promise->get_future();
  std::thread([uri, given = route.given, promise, attempt] {
    try {
      promise->set_value(OpenNow(uri, given));
    } catch (...) {
      promise->set_exception(std::current_exception());
    }
    if (attempt->End()) LeftBehind::The().Add(uri, -1);
  }).detach();
  if (future.wait_for(kOpenLimit) != std::future_status::ready) {
    // Counted first: it may end, and be taken off, at once.
    LeftBehind::The().Add(uri, 1);
    if (!attempt->Leave()) LeftBehind::The().Add(uri, -1);
    fail(fmt::format("no answer within {} s", kOpenLimit.count()));
  }
  return future.get();
}

}  // namespace sbxfs
