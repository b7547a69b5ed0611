#include "backend/libvirt_open.h"

#include <fmt/format.h>
#include <libvirt/virterror.h>

#include <cerrno>
#include <chrono>
#include <future>
#include <map>
#include <memory>
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

// The openings that are under way, by URI.
class Openings {
 public:
  // Never destroyed: threads that were left behind end when they like.
  static Openings& The() {
    static auto* openings = new Openings;
    return *openings;
  }
  bool Begin(const std::string& uri) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    int& count = count_[uri];
    if (count >= kMostHung) return false;
    ++count;
    return true;
  }
  void End(const std::string& uri) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (--count_[uri] == 0) count_.erase(uri);
  }

 private:
  Mutex mutex_;
  std::map<std::string, int> count_ GUARDED_BY(mutex_);
};

ConnPtr OpenNow(const std::string& uri, const std::string& given) {
  // No credentials are asked for: there is nobody to ask.
  virConnectAuth auth{};
  ConnPtr connection(
      virConnectOpenAuth(uri.empty() ? nullptr : uri.c_str(), &auth, 0));
  if (connection == nullptr) throw ConnectError(given);
  return connection;
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
  if (!Openings::The().Begin(uri)) {
    fail(fmt::format("{} earlier tries still wait for an answer", kMostHung));
  }
  auto promise = std::make_shared<std::promise<ConnPtr>>();
  auto future = promise->get_future();
  std::thread([uri, given = route.given, promise] {
    try {
      promise->set_value(OpenNow(uri, given));
    } catch (...) {
      promise->set_exception(std::current_exception());
    }
    Openings::The().End(uri);
  }).detach();
  if (future.wait_for(kOpenLimit) != std::future_status::ready) {
    fail(fmt::format("no answer within {} s", kOpenLimit.count()));
  }
  return future.get();
}

}  // namespace sbxfs
