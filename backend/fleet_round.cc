#include "backend/fleet_round.h"

#include <memory>
#include <optional>
#include <utility>
#include <variant>

namespace sbxfs {
namespace {

struct Round {
  std::vector<Backend*> left;
  FleetDoing doing;
  Reply<Done> reply;
  std::optional<Error> failure;  // the first
};

void Next(const std::shared_ptr<Round>& round) {
  if (round->left.empty()) {
    if (round->failure) return round->reply.Fail(*round->failure);
    return round->reply.Ok();
  }
  Backend* const backend = round->left.front();
  round->left.erase(round->left.begin());
  const Reply<Done> one([round](Outcome<Done> outcome) {
    const auto* error = std::get_if<Error>(&outcome);
    if (error != nullptr && !round->failure) round->failure = *error;
    Next(round);
  });
  one.Guard([&] { round->doing(*backend, one); });
}

}  // namespace

void DoOnEach(std::vector<Backend*> backends, FleetDoing doing,
              Reply<Done> reply) {
  Next(std::make_shared<Round>(Round{std::move(backends), std::move(doing),
                                     std::move(reply), std::nullopt}));
}

}  // namespace sbxfs
