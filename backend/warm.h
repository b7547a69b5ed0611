#ifndef SBXFS_BACKEND_WARM_H_
#define SBXFS_BACKEND_WARM_H_

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "backend/core.h"
#include "backend/images.h"
#include "backend/layers.h"
#include "backend/provision.h"
#include "backend/warm_xml.h"

namespace sbxfs {

// In `progress`, before why a guest does not go on from a template.
inline constexpr char kColdSince[] = ", cold, since ";

// Memory templates: a guest that was booted from an image once, with the
// memory, processors and disk size that sandboxes ask for, and was saved when
// it had come to rest. A sandbox's first start goes on from there instead of
// booting: its disk is an overlay on the template's, its memory a private
// mapping of the template's, so that both are shared until they are written.
//
// A template is volumes of the pool: UUID.disk.N (a frozen layer on the image),
// UUID.memory.N (the memory as QEMU maps it) and UUID.warm.N (all the rest of
// the save image), the last of which is made last. Its UUID comes of what it is
// for, so that every mount finds it. Blocking functions say so; they throw
// Error.
class Warm {
 public:
  Warm(Core& core, Images& images, Provision& provision)
      : core_(core), images_(images), provision_(provision), layers_(core) {}

  // A template as it was read.
  struct Template {
    std::string state;  // the volume's name
    WarmNote note;
    std::string xml;
    std::string rest;  // the migration stream without the memory
    uint64_t memory = 0;
  };
  using TemplatePtr = std::shared_ptr<const Template>;
  struct Fit {
    TemplatePtr found;    // null: it boots,
    std::string why;      // since
    bool wanted = false;  // one could be made, or made anew
  };
  // Blocks: what a stopped sandbox that was never started can go on from.
  [[nodiscard]] Fit Look(const std::string& uuid) EXCLUDES(mutex_);
  // Blocks: has it go on from there. Callers hold its turn. When it throws the
  // guest is down, but its disk may be the template's.
  void Start(const std::string& uuid, const Template& from,
             const std::string& what);
  // Blocks: makes a guest that goes on from a template the sandbox that it is,
  // when it is not yet. Any mount may do it, in the sandbox's turn.
  void Become(const std::string& uuid, const std::string& what);
  // Blocks: a saved guest, which has its memory whole, needs its template no
  // more. What libvirt refuses is left as it is.
  static void Part(virDomainPtr domain);
  // Blocks: a sandbox that goes on from another's memory does so no more. The
  // others that do are left.
  void Unfork(const std::string& uuid, const std::string& what);
  // Blocks: forgets a template that is of no use.
  void Drop(const Template& one, const std::string& why) EXCLUDES(mutex_);
  // Blocks: one that a sandbox could not go on from is dropped, unless it is
  // not to blame. Whether it is to be made anew: that is tried once.
  [[nodiscard]] bool Fail(const Template& one, const Error& error,
                          const std::string& why) EXCLUDES(mutex_);
  // Makes the template that a sandbox which has booted could have gone on from,
  // unless there is one. Returns at once.
  void MakeSoon(const std::string& uuid) EXCLUDES(mutex_);
  // Blocks: forgets those of an image that goes.
  void DropOf(const std::string& image);
  // A line for each, for people.
  [[nodiscard]] std::string List();
  // Ends the making of templates, and waits a while for it to have tidied up.
  void Stop() EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;

  // What a template is for.
  struct Kind {
    std::string uuid;
    Spec spec;  // nothing of one sandbox alone
    std::string image;
    std::string user;
  };
  [[nodiscard]] Kind KindOf(const Metadata& meta, const Spec& spec) const;
  [[nodiscard]] std::string WhyNot(const Metadata& meta, const Spec& spec,
                                   const DomainFacts& facts) const;
  [[nodiscard]] std::string WhyStale(const WarmNote& note);
  // Blocks: of a clone of a guest's memory, which it splits when nobody has.
  [[nodiscard]] Fit LookAtFork(const Metadata& meta, const Spec& spec)
      EXCLUDES(mutex_);
  [[nodiscard]] std::string WhyNotFork(std::string_view xml,
                                       const Metadata& meta, const Spec& spec);
  void SplitFork(const Metadata& meta, const std::string& what);
  [[nodiscard]] TemplatePtr Read(const std::string& state) EXCLUDES(mutex_);
  [[nodiscard]] bool IsBeingWritten(const std::string& state) EXCLUDES(mutex_);
  [[nodiscard]] std::string Hypervisor() const;
  // Digest of what boot.sh does in a guest, but for its names.
  [[nodiscard]] static std::string DocumentsOf(const SeedInput& seed);
  // The same of what is in every guest's, whoever it is and wherever it runs.
  [[nodiscard]] static std::string Scripts();
  // Why that one cannot be another of its kind; empty when it can.
  [[nodiscard]] std::string WhyNotOf(const WarmNote& note,
                                     const Spec& spec) const;
  // The last one of a kind that is whole; empty when there is none.
  [[nodiscard]] std::string StateOf(const std::string& kind) EXCLUDES(mutex_);
  // What its guest, whose XML that is, has not yet.
  void PlugIn(const std::string& uuid, std::string_view xml, const Spec& spec,
              const std::string& what);
  // Runs it in the guest as soon as that answers, with TIME as it is by then;
  // what it said.
  [[nodiscard]] std::string Attend(const std::string& uuid,
                                   const std::string& script,
                                   const std::string& input,
                                   const std::string& what);

  [[nodiscard]] static bool IsAnothers(const RunInfo& run);

  class Maker;  // of one template
  void Make(const Kind& kind) EXCLUDES(mutex_);
  // Whether there is one as it would be made.
  [[nodiscard]] bool IsMade(const Kind& kind) EXCLUDES(mutex_);

  Core& core_;
  Images& images_;
  Provision& provision_;
  Layers layers_;
  std::atomic<bool> stopping_ = false;
  Mutex mutex_;
  std::map<std::string, TemplatePtr> read_ GUARDED_BY(mutex_);  // by state
  // By uuid: how far the making of one is, or why there will be none.
  struct Making {
    std::string how;
    std::string state;                 // the volume that there will be
    std::shared_ptr<virDomain> guest;  // that it is made of
  };
  std::map<std::string, Making> making_ GUARDED_BY(mutex_);
  std::map<std::string, std::string> failed_ GUARDED_BY(mutex_);
  std::set<std::string> dropped_ GUARDED_BY(mutex_);  // kinds that failed once
};

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_WARM_H_
