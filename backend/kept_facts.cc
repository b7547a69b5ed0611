#include "backend/kept_facts.h"

#include <fmt/format.h>

#include <charconv>
#include <string>
#include <string_view>
#include <utility>

namespace sbxfs {
namespace {

constexpr std::string Metadata::*kLongTexts[] = {
    &Metadata::config,   &Metadata::bases,   &Metadata::rejected,
    &Metadata::defined,  &Metadata::applied, &Metadata::rejected_reason,
    &Metadata::host_key, &Metadata::records, &Metadata::authorized_keys,
    &Metadata::keeps};

}  // namespace

KeptFacts::KeptFacts(DomainFacts facts) : brief_(std::move(facts)) {
  if (!brief_.metadata) return;
  std::string all;
  for (const auto text : kLongTexts) {
    // Taken out with its room.
    const std::string one = std::exchange((*brief_.metadata).*text, {});
    all += fmt::format("{}:{}", one.size(), one);
  }
  texts_ = PackedText<PackedKind::kMetadata>(all);
}

DomainFacts KeptFacts::Whole() const {
  DomainFacts facts = brief_;
  if (!facts.metadata) return facts;
  const std::string all = texts_.Text();
  std::string_view rest = all;
  for (const auto text : kLongTexts) {
    size_t size = 0;
    const auto [end, error] =
        std::from_chars(rest.data(), rest.data() + rest.size(), size);
    rest.remove_prefix(end - rest.data() + 1);  // and the colon
    (*facts.metadata).*text = rest.substr(0, size);
    rest.remove_prefix(size);
  }
  return facts;
}

}  // namespace sbxfs
