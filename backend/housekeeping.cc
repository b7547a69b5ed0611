#include "backend/housekeeping.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "backend/util/log.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// Made by who works in the background; its time is the hypervisor's.
constexpr char kLease[] = "lease.background";
// It is held for seconds: after this time its holder was killed.
constexpr auto kForgotten = 10min;
constexpr auto kLeaseTaken = 5s;
constexpr auto kFailed = 10min;

// The uuid that a volume of a sandbox is named after, or empty.
std::string UuidIn(const std::string& volume) {
  constexpr std::string_view kPattern = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx.";
  if (volume.size() <= kPattern.size()) return "";
  for (size_t i = 0; i < kPattern.size(); ++i) {
    const char c = volume[i];
    const bool good = kPattern[i] == 'x'
                          ? (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')
                          : c == kPattern[i];
    if (!good) return "";
  }
  return volume.substr(0, kPattern.size() - 1);
}

// libvirt deletes volumes in use and layers that others stand on.
class Uses {
 public:
  Uses(virConnectPtr connection, Storage& storage) : volumes_(storage.List()) {
    for (const auto& domain : ListDomains(connection)) {
      for (const unsigned flags : {0U, unsigned{VIR_DOMAIN_XML_INACTIVE}}) {
        definitions_ += TakeString(virDomainGetXMLDesc(domain.get(), flags));
      }
    }
  }
  [[nodiscard]] const Volume* Find(const std::string& name) const {
    const auto found =
        std::find_if(volumes_.begin(), volumes_.end(),
                     [&](const Volume& one) { return one.name == name; });
    return found == volumes_.end() ? nullptr : &*found;
  }
  // Names hold a uuid, so that a text with one means it.
  [[nodiscard]] bool Has(const std::string& name) const {
    return definitions_.find(name) != std::string::npos ||
           std::any_of(volumes_.begin(), volumes_.end(),
                       [&](const Volume& one) {
                         return one.backing.ends_with("/" + name);
                       });
  }

 private:
  const std::vector<Volume> volumes_;
  std::string definitions_;
};

}  // namespace

void Housekeeping::Plan(Chore chore, std::chrono::milliseconds delay) {
  MutexLock lock(mutex_);
  core_.timer.Cancel(due_[chore]);
  due_[chore] = core_.timer.After(delay, [this, chore] {
    core_.workers.Run([this, chore] {
      Next next;
      try {
        next = chore == kTrash ? EmptyTrash() : Sweep();
      } catch (const Error& error) {
        // A new connection plans both anew.
        if (error.Errno() != EHOSTDOWN) {
          spdlog::error("{}", error.Sentence());
          next = kFailed;
        }
      }
      if (next) Plan(chore, *next);
    });
  });
}

bool Housekeeping::TakeLease() {
  Storage& storage = core_.storage;
  for (;;) {
    try {
      storage.WriteNew(kLease, "");
      return true;
    } catch (const Error& error) {
      if (error.Errno() != EEXIST) throw;
    }
    const Time made = storage.Get(kLease).modified;
    const auto now = std::chrono::steady_clock::now();
    {
      MutexLock lock(mutex_);
      if (!theirs_ || theirs_->first != made) theirs_.emplace(made, now);
      if (now - theirs_->second < kForgotten) return false;
      theirs_.reset();
    }
    storage.Delete(kLease);
  }
}

bool Housekeeping::WithLease(const std::function<void(Time)>& work) {
  if (!TakeLease()) return false;
  Undo release;
  release.Add([this] { core_.storage.Delete(kLease); });
  work(core_.storage.Get(kLease).modified);
  return true;
}

Housekeeping::Next Housekeeping::EmptyTrash() {
  Next next;
  auto again = [&next](std::chrono::milliseconds wait) {
    next = std::min(next.value_or(wait), wait);
  };
  std::vector<std::string> due;
  for (const auto& sandbox : core_.catalog.List(true)) {
    const auto age = std::chrono::system_clock::now() - *sandbox->trashed;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        core_.options.trash - age);
    if (left.count() > 0) {
      // A second's slack: expiry is no alarm clock.
      again(std::min<std::chrono::milliseconds>(left + 1s, 1h));
    } else {
      due.push_back(sandbox->uuid);
    }
  }
  auto expire = [&](Time) {
    for (const auto& uuid : due) {
      try {
        provision_.Expire(uuid);
      } catch (const Error& error) {
        spdlog::error("{}", error.Sentence());
        again(kFailed);
      }
    }
  };
  if (due.empty()) return next;
  if (core_.test_driver) {
    expire({});
  } else if (!WithLease(expire)) {
    again(kLeaseTaken);
  }
  return next;
}

std::vector<std::string> Housekeeping::WithoutDomain(
    const std::vector<std::string>& volumes) {
  const ConnPtr connection = core_.connection.Get("Cannot sweep the pool");
  std::set<std::string> known;
  for (const auto& domain : ListDomains(connection.get())) {
    known.insert(UuidOf(domain.get()));
  }
  std::vector<std::string> without;
  for (const auto& volume : volumes) {
    const std::string uuid = UuidIn(volume);
    if (!uuid.empty() && !known.contains(uuid)) without.push_back(volume);
  }
  return without;
}

// What a kill -9 in the middle of mkdir, rmdir, a document or an image left.
// A mkdir of another mount looks the same while it lasts: its volumes are
// young.
Housekeeping::Next Housekeeping::Sweep() {
  Storage& storage = core_.storage;
  auto old = [&](const std::vector<std::string>& names) {
    auto left = WithoutDomain(names);
    const auto halves = documents_.Leftovers(names);
    left.insert(left.end(), halves.begin(), halves.end());
    return left;
  };
  const auto names = storage.Names();
  const bool uploads =
      std::any_of(names.begin(), names.end(),
                  [](const std::string& name) { return Images::IsMark(name); });
  if (old(names).empty() && !uploads) return std::nullopt;
  Next next;
  auto remove = [&](const std::string& name) {
    storage.Delete(name);
    spdlog::info("Removed the abandoned volume '{}'", name);
    core_.catalog.Report("abandoned", name);
  };
  const bool done = WithLease([&](Time now) {
    const auto fresh = storage.Names();
    const ConnPtr connection = core_.connection.Get("Cannot sweep the pool");
    const Uses uses(connection.get(), storage);
    for (const auto& name : old(fresh)) {
      const Volume* volume = uses.Find(name);
      if (volume == nullptr || uses.Has(name)) continue;
      if (now - volume->modified >= core_.options.orphan_age) {
        remove(name);
      } else {
        next = std::max<std::chrono::milliseconds>(core_.options.orphan_age,
                                                   100ms);
      }
    }
    for (const auto& name : images_.Abandoned(fresh, now)) remove(name);
  });
  if (!done) return kLeaseTaken;
  if (uploads && !next) next = 1h;
  return next;
}

}  // namespace sbxfs
