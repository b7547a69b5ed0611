#include "fs/inode_table.h"

#include <algorithm>
#include <utility>

namespace sbxfs {

InodeTable::InodeTable(const NodePtr& root) {
  MutexLock lock(mutex_);
  numbers_[root->key] = kRoot;
  entries_[kRoot] = {root, 1};
}

NodePtr InodeTable::Find(uint64_t number) {
  MutexLock lock(mutex_);
  const auto found = entries_.find(number);
  return found == entries_.end() ? nullptr : found->second.node;
}

uint64_t InodeTable::NumberOf(const std::string& key) {
  const auto [at, added] = numbers_.try_emplace(key, last_ + 1);
  if (added) ++last_;
  return at->second;
}

uint64_t InodeTable::Number(const Node& node) {
  MutexLock lock(mutex_);
  return NumberOf(node.key);
}

uint64_t InodeTable::Remember(const NodePtr& node) {
  NodePtr freed;  // its destructor may take locks of its own
  MutexLock lock(mutex_);
  uint64_t number = NumberOf(node->key);
  if (node->Overtakable() && waiting_.contains(number)) {
    number = ++last_;
    numbers_[node->key] = number;
  }
  Entry& entry = entries_[number];
  if (!entry.node && node->Steady()) steady_[node->subject].push_back(number);
  freed = std::exchange(entry.node, node);
  ++entry.lookups;
  return number;
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
  if (freed->Transient()) numbers_.erase(freed->key);
  const auto steady = steady_.find(freed->subject);
  if (steady == steady_.end() || std::erase(steady->second, number) == 0) {
    return;
  }
  if (steady->second.empty()) steady_.erase(steady);
}

void InodeTable::Retire(const std::string& key) {
  MutexLock lock(mutex_);
  if (!key.ends_with('/')) {
    numbers_.erase(key);
    return;
  }
  std::erase_if(numbers_,
                [&](const auto& one) { return one.first.starts_with(key); });
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
