#include "fs/inode_table.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <utility>

namespace sbxfs {
namespace {

constexpr std::size_t kMostAged = 4096;
// How many numbers of an object Fits tries: more are taken for none, and who
// has it open is told ESTALE.
constexpr uint32_t kMostAges = 4;
// The upper bits are the sandbox's, so that whose a number is can be told
// without a look at all files of all.
constexpr int kSubjectShift = 48;

uint64_t SubjectBits(const std::string& subject, uint64_t seed) {
  return XXH64(subject.data(), subject.size(), seed) << kSubjectShift;
}

}  // namespace

InodeTable::InodeTable(const NodePtr& root, uint64_t seed)
    : seed_(seed), root_(root->Identity()) {
  MutexLock lock(mutex_);
  entries_[kRoot] = {root, 1};
}

NodePtr InodeTable::Find(uint64_t number) {
  MutexLock lock(mutex_);
  const auto found = entries_.find(number);
  return found == entries_.end() ? nullptr : found->second.node;
}

uint64_t InodeTable::Hash(const Node& node, uint32_t age) const {
  const std::string& identity = node.Identity();
  if (identity == root_) return kRoot;
  const uint64_t own = XXH64(identity.data(), identity.size(), seed_ + 1 + age);
  const uint64_t number =
      SubjectBits(node.subject, seed_) | own >> (64 - kSubjectShift);
  return number > kRoot ? number : kRoot + 1;
}

uint32_t InodeTable::AgeOf(const std::string& key) {
  if (ages_.empty()) return 0;
  uint32_t age = 0;
  const auto add = [&](const std::string& part) REQUIRES(mutex_) {
    const auto found = ages_.find(part);
    if (found != ages_.end()) age += found->second;
  };
  for (auto at = key.find('/'); at != std::string::npos;
       at = key.find('/', at + 1)) {
    add(key.substr(0, at + 1));
  }
  if (!key.ends_with('/')) add(key);
  return age;
}

void InodeTable::Age(const std::string& key) {
  if (ages_[key]++ != 0) return;
  aged_.push_back(key);
  if (aged_.size() <= kMostAged) return;
  ages_.erase(aged_.front());
  aged_.pop_front();
}

uint64_t InodeTable::NumberOf(const Node& node) {
  const std::string& identity = node.Identity();
  uint64_t number = Hash(node, AgeOf(identity));
  // Another's, by chance: this object is as if it had been there before.
  for (auto found = entries_.find(number);
       found != entries_.end() && found->second.node->Identity() != identity;
       found = entries_.find(number)) {
    Age(identity);
    number = Hash(node, AgeOf(identity));
  }
  return number;
}

uint64_t InodeTable::Number(const Node& node) {
  MutexLock lock(mutex_);
  return NumberOf(node);
}

bool InodeTable::FitsSubject(uint64_t number,
                             const std::string& subject) const {
  return number >> kSubjectShift ==
         SubjectBits(subject, seed_) >> kSubjectShift;
}

bool InodeTable::Fits(uint64_t number, const Node& node) const {
  for (uint32_t age = 0; age < kMostAges; ++age) {
    if (Hash(node, age) == number) return true;
  }
  return false;
}

void InodeTable::Add(uint64_t number, const NodePtr& node, NodePtr& freed) {
  Entry& entry = entries_[number];
  if (!entry.node && node->Steady()) steady_[node->subject].push_back(number);
  freed = std::exchange(entry.node, node);
  ++entry.lookups;
}

uint64_t InodeTable::Remember(const NodePtr& node) {
  NodePtr freed;  // its destructor may take locks of its own
  MutexLock lock(mutex_);
  uint64_t number = NumberOf(*node);
  while (node->Overtakable() && waiting_.contains(number)) {
    Age(node->Identity());
    number = NumberOf(*node);
  }
  Add(number, node, freed);
  return number;
}

// How often the kernel has been told of it is not known. One is forgotten too
// early then, and found again.
void InodeTable::Adopt(uint64_t number, const NodePtr& node) {
  NodePtr freed;
  MutexLock lock(mutex_);
  if (!entries_.contains(number)) Add(number, node, freed);
}

void InodeTable::Forget(uint64_t number, uint64_t count) {
  NodePtr freed;
  MutexLock lock(mutex_);
  const auto found = entries_.find(number);
  if (found == entries_.end() || number == kRoot) return;
  Entry& entry = found->second;
  entry.lookups -= std::min(count, entry.lookups);
  if (entry.lookups != 0) return;
  freed = std::move(entry.node);
  entries_.erase(found);
  const auto steady = steady_.find(freed->subject);
  if (steady == steady_.end() || std::erase(steady->second, number) == 0) {
    return;
  }
  if (steady->second.empty()) steady_.erase(steady);
}

void InodeTable::Retire(const std::string& key) {
  MutexLock lock(mutex_);
  Age(key);
}

std::vector<uint64_t> InodeTable::Steady(const std::string& subject) {
  MutexLock lock(mutex_);
  const auto found = steady_.find(subject);
  return found == steady_.end() ? std::vector<uint64_t>() : found->second;
}

bool InodeTable::IsWaiting(uint64_t number) {
  MutexLock lock(mutex_);
  return waiting_.contains(number);
}

std::shared_ptr<void> InodeTable::Waiting(uint64_t number) {
  {
    MutexLock lock(mutex_);
    ++waiting_[number];
  }
  return std::shared_ptr<void>(nullptr, [this, number](void*) {
    MutexLock lock(mutex_);
    const auto found = waiting_.find(number);
    if (--found->second == 0) waiting_.erase(found);
  });
}

void InodeTable::Clear() {
  std::unordered_map<uint64_t, Entry> freed;
  MutexLock lock(mutex_);
  freed.swap(entries_);
}

}  // namespace sbxfs
