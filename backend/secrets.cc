#include "backend/secrets.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "backend/guest/boot.h"
#include "backend/guest_shell.h"
#include "backend/util/text.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

constexpr size_t kLongestSecret = 65536;

// Bytes that are in no swap space, where that is allowed, and gone when
// nobody needs them any more.
std::shared_ptr<std::string> Guarded(std::string_view value) {
  std::shared_ptr<std::string> copy(new std::string(value),
                                    [](std::string* secret) {
                                      const size_t size = secret->size();
                                      Wipe(*secret);
                                      munlock(secret->data(), size);
                                      delete secret;
                                    });
  (void)mlock(copy->data(), copy->size());
  return copy;
}

}  // namespace

void Secrets::Set(const std::string& uuid, const std::string& name,
                  const std::string& value, Reply<Done> reply) {
  const SandboxPtr known = core_.catalog.Get(uuid);
  const std::string what =
      fmt::format("Cannot set secret '{}' of '{}'", name,
                  known == nullptr ? "the sandbox" : known->name);
  if (!IsSecretName(name)) {
    throw Error(EINVAL, fmt::format("{}: a name is made of letters, digits and "
                                    "'_', does not begin with a digit and has "
                                    "{} bytes at most",
                                    what, kLongestSecretName));
  }
  if (value.size() > kLongestSecret) {
    throw Error(E2BIG, fmt::format("{}: a secret has {} bytes at most", what,
                                   kLongestSecret));
  }
  if (value.find('\0') != std::string::npos) {
    throw Error(EINVAL, fmt::format("{}: there is a NUL in it, which no "
                                    "variable can hold; encode it",
                                    what));
  }
  const auto secret = Guarded(value);
  if (std::count(secret->begin(), secret->end(), '\n') == 1 &&
      secret->ends_with('\n')) {
    secret->pop_back();
  }
  core_.workers.Run([this, uuid, name, what, secret, reply] {
    reply.Guard([&] {
      SetNow(uuid, name, *secret, what);
      reply.Ok();
    });
  });
}

void Secrets::SetNow(const std::string& uuid, const std::string& name,
                     const std::string& value, const std::string& what) {
  // One after the other: each makes the guest's list of variables anew.
  const Turns::Turn turn =
      core_.turns.Take("secrets " + uuid, "set a secret", 60s);
  const SandboxPtr sandbox = core_.Reachable(uuid, what);
  if (core_.test_driver || !sandbox->ours) {
    throw Error(EOPNOTSUPP, what + ": its guest is not sbxfs's");
  }
  if (sandbox->state != State::kRunning && sandbox->state != State::kStarting) {
    throw Error(EBUSY,
                fmt::format("{}: it is {}, and only a running guest holds "
                            "secrets; start it first",
                            what, StateName(sandbox->state)));
  }
  ShellResult result;
  try {
    const std::string script = fmt::format(
        "key={}\nuser={}\nkeep={}\n{}", name, ShellQuote(sandbox->user),
        value.empty() ? "no" : "yes", kSecretScript);
    // The agent is quicker, and the kernel holds the directory during an rm.
    result = value.empty()
                 ? RunInGuest(core_, uuid, script, "", 30s)
                 : RunInGuestPrivately(core_, uuid, script, value, 30s);
  } catch (const Error& error) {
    if (sandbox->ready) throw;
    throw Error(EBUSY,
                fmt::format("{}: its guest is not up yet ({}); write it again "
                            "once ready says yes",
                            what, error.Sentence()));
  }
  if (result.status != 0) {
    throw Error(
        EIO,
        fmt::format(
            "{}: in the guest it ended with status {}{}", what, result.status,
            result.output.empty() ? "" : ": " + LastWords(result.output)));
  }
  core_.ChangeRun(uuid, [&](RunInfo& run) {
    if (value.empty()) {
      run.secrets.erase(name);
    } else {
      run.secrets.insert(name);
    }
  });
  core_.ReadDone(uuid);
}

}  // namespace sbxfs
