#include "backend/documents.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "backend/util/text.h"

namespace sbxfs {
namespace {

constexpr std::string_view kDoc = "doc.";

// Of "doc.NAME.N": "doc.NAME." and N; N is 0 for what is no document.
std::pair<std::string, int> Parse(std::string_view volume) {
  const auto dot = volume.rfind('.');
  if (!volume.starts_with(kDoc) || dot < kDoc.size()) return {"", 0};
  const auto number = ParseNumber(volume.substr(dot + 1));
  if (!number || *number == 0 || *number > INT32_MAX) return {"", 0};
  return {std::string(volume.substr(0, dot + 1)), static_cast<int>(*number)};
}

std::string HeaderOf(std::string_view text) {
  return fmt::format("# sbxfs: {} bytes, {:08x}\n", text.size(), Hash32(text));
}

}  // namespace

std::string SealText(std::string_view text) {
  return HeaderOf(text) + std::string(text);
}

std::optional<std::string> UnsealText(std::string_view sealed) {
  const auto line = sealed.find('\n');
  if (line == std::string_view::npos) return std::nullopt;
  const std::string_view text = sealed.substr(line + 1);
  if (sealed.substr(0, line + 1) != HeaderOf(text)) return std::nullopt;
  return std::string(text);
}

Documents::Found Documents::Newest(const std::string& prefix,
                                   const std::vector<std::string>& volumes) {
  std::vector<Found> found;
  for (const auto& volume : volumes) {
    const auto [name, number] = Parse(volume);
    if (number != 0 && name == prefix) found.push_back({volume, number, ""});
  }
  std::sort(found.begin(), found.end(),
            [](const Found& a, const Found& b) { return a.number > b.number; });
  for (auto& one : found) {
    try {
      auto text = UnsealText(storage_.Read(one.volume, 0, 0));
      if (!text) continue;
      one.text = *std::move(text);
      return one;
    } catch (const Error& error) {
      // A newer one took its place since the listing, or it is being made.
      if (error.Errno() != ENOENT && error.Errno() != EBUSY) throw;
    }
  }
  return {};
}

Documents::Text Documents::Read(const std::string& name) {
  const std::string prefix = fmt::format("{}{}.", kDoc, name);
  Found newest = Newest(prefix, storage_.Names());
  if (newest.number == 0) return {};
  return {std::move(newest.text), storage_.Get(newest.volume).modified};
}

void Documents::Write(const std::string& name, const std::string& text) {
  const std::string prefix = fmt::format("{}{}.", kDoc, name);
  // Another hypervisor with this pool may have stored one.
  storage_.Refresh();
  const auto volumes = storage_.Names();
  if (const Found now = Newest(prefix, volumes);
      now.number != 0 && now.text == text) {
    return;
  }
  std::vector<std::string> old;
  int last = 0;
  for (const auto& volume : volumes) {
    const auto [other, number] = Parse(volume);
    if (number == 0 || other != prefix) continue;
    old.push_back(volume);
    last = std::max(last, number);
  }
  for (int tries = 0;; ++tries) {
    try {
      storage_.WriteNew(fmt::format("{}{}", prefix, ++last), SealText(text));
      break;
    } catch (const Error& error) {
      if (error.Errno() == ENOSPC) {
        throw error.As(fmt::format("Cannot store '{}'", name));
      }
      // Another mount stores one just now: ours is the later.
      if (error.Errno() != EEXIST || tries == 8) throw;
    }
  }
  for (const auto& volume : old) storage_.Delete(volume);
}

std::map<std::string, Documents::Text> Documents::ReadAll(
    const std::string& prefix) {
  const auto volumes = storage_.Names();
  std::set<std::string> prefixes;
  for (const auto& volume : volumes) {
    auto [name, number] = Parse(volume);
    if (number != 0 && name.starts_with(fmt::format("{}{}", kDoc, prefix))) {
      prefixes.insert(std::move(name));
    }
  }
  std::map<std::string, Text> texts;
  for (const auto& one : prefixes) {
    Found newest = Newest(one, volumes);
    if (newest.number == 0) continue;
    // Without "doc." and the last dot.
    texts[one.substr(kDoc.size(), one.size() - kDoc.size() - 1)] = {
        std::move(newest.text), storage_.Get(newest.volume).modified};
  }
  return texts;
}

void Documents::Remove(const std::string& name) {
  const std::string prefix = fmt::format("{}{}.", kDoc, name);
  for (const auto& volume : storage_.Names()) {
    if (Parse(volume).first == prefix) storage_.Delete(volume);
  }
}

std::vector<std::string> Documents::Leftovers(
    const std::vector<std::string>& volumes) {
  std::set<std::string> prefixes;
  for (const auto& volume : volumes) {
    const auto [prefix, number] = Parse(volume);
    if (number != 0) prefixes.insert(prefix);
  }
  std::set<std::string> good;
  for (const auto& prefix : prefixes) {
    good.insert(Newest(prefix, volumes).volume);
  }
  std::vector<std::string> left;
  for (const auto& volume : volumes) {
    if (Parse(volume).second != 0 && !good.contains(volume)) {
      left.push_back(volume);
    }
  }
  return left;
}

}  // namespace sbxfs
