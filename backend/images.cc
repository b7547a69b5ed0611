#include "backend/images.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <set>
#include <vector>

#include "backend/images_incoming.h"
#include "backend/util/process_mark.h"

namespace sbxfs {

void Images::Show(const std::string& name, uint64_t size) {
  (void)InspectImage(name, size, ReaderOf(core_.storage, ImageVolume(name)));
  core_.storage.Delete(MarkVolume(name));
  core_.storage.Announce();
  Refresh();
}

void Images::Adopt(const std::string& name,
                   const std::function<void(const std::string&)>& make) {
  if (core_.test_driver) {
    throw Error(EOPNOTSUPP,
                "Cannot create an image: the test driver keeps none");
  }
  TakeName(name);
  try {
    core_.storage.Delete(ImageVolume(name));
    make(ImageVolume(name));
    Show(name, core_.storage.Get(ImageVolume(name)).size);
  } catch (...) {
    Discard(name);
    throw;
  }
}

void Images::Refresh() {
  const uint64_t number = looks_.Begin();
  const auto volumes = core_.storage.List(kImageVolume);
  // Looked at again, all in one moment: of what is given up the image goes
  // first and its mark last.
  const auto listed = core_.storage.Names();
  const std::set<std::string> names(listed.begin(), listed.end());
  const auto used = core_.ImagesInUse();
  const PoolRoom room = core_.LookAtPools();
  std::vector<Image> images;
  for (const auto& volume : volumes) {
    const std::string name = volume.name.substr(kImageVolume.size());
    if (names.contains(MarkVolume(name)) || !names.contains(volume.name))
      continue;
    images.push_back({name, volume.size, volume.modified, used.contains(name)});
  }
  std::sort(images.begin(), images.end(),
            [](const Image& a, const Image& b) { return a.name < b.name; });
  core_.catalog.ChangeHostIf([&](Host& host) {
    if (!looks_.Keeps(number)) return false;
    host.images = images;
    room.Show(host);
    return true;
  });
}

bool Images::IsMark(const std::string& volume) {
  return volume.starts_with(kMarkVolume);
}

std::vector<std::string> Images::Abandoned(
    const std::vector<std::string>& volumes, Time now) {
  // A writer elsewhere that cannot be seen from here may rest a night.
  constexpr std::chrono::hours kUnseen(24);
  std::vector<std::string> abandoned;
  for (const auto& mark : volumes) {
    if (!IsMark(mark)) continue;
    const std::string name = mark.substr(kMarkVolume.size());
    std::vector<std::string> there;
    for (const auto& one : {ForeignVolume(name), ImageVolume(name)}) {
      if (std::find(volumes.begin(), volumes.end(), one) != volumes.end()) {
        there.push_back(one);
      }
    }
    try {
      const std::string writer = core_.storage.Read(mark, 0, 0);
      if (!IsMarkOfTheDead(writer)) {
        Time last = core_.storage.Get(mark).modified;
        for (const auto& one : there) {
          last = std::max(last, core_.storage.Get(one).modified);
        }
        // One without a word was cut off while it was made.
        const std::chrono::seconds patience =
            writer.ends_with('\n') ? kUnseen : core_.options.orphan_age;
        if (now - last < patience) continue;
      }
    } catch (const Error& error) {
      if (error.Errno() != ENOENT) throw;
      continue;  // it was finished, or given up, since the listing
    }
    abandoned.insert(abandoned.end(), there.begin(), there.end());
    abandoned.push_back(mark);
  }
  return abandoned;
}

Images::Base Images::Inspect(const std::string& name) {
  const Volume volume = core_.storage.Get(ImageVolume(name));
  const std::pair<uint64_t, Time> stamp(volume.size, volume.modified);
  Base base{name, core_.storage.Path(ImageVolume(name)), {}};
  {
    MutexLock lock(mutex_);
    const auto known = facts_.find(name);
    if (known != facts_.end() && known->second.first == stamp) {
      base.facts = known->second.second;
      return base;
    }
  }
  base.facts = InspectImage(name, volume.size,
                            ReaderOf(core_.storage, ImageVolume(name)));
  MutexLock lock(mutex_);
  facts_[name] = {stamp, base.facts};
  return base;
}

void Images::Remove(const std::string& name, Reply<Done> reply) {
  core_.workers.Run([this, name, reply] {
    const std::string what = fmt::format("Cannot remove image '{}'", name);
    reply.Guard(what, [&] {
      (void)core_.connection.Get(what);
      if (core_.ImagesInUse().contains(name)) {
        throw Error(EBUSY, what +
                               ": a sandbox stands on it; rmdir that first "
                               "(and look into .host/trash)");
      }
      if (before_remove) before_remove(name);
      core_.storage.Delete(ImageVolume(name));
      core_.storage.Announce();
      Refresh();
      reply.Ok();
    });
  });
}

}  // namespace sbxfs
