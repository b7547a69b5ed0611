// Replies of the guest's agent, where root in the guest may be the agent. Each
// line is one; libvirt's own function is replaced by the one here.
#include <libvirt/libvirt-qemu.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "backend/core.h"
#include "backend/guest_clock.h"
#include "backend/guest_shell.h"
#include "tests/fuzz/fuzz.h"

namespace sbxfs::fuzz {
namespace {

// libvirt's test driver has a domain of this uuid from the start.
constexpr char kUuid[] = "6695eb01-f6a4-8304-79aa-97f2502e193f";

Bytes* g_replies = nullptr;

// Never freed: its threads end with the process.
Core& TheCore() {
  static Core* const core = [] {
    char home[] = "/tmp/sbxfs-fuzz.XXXXXX";
    Check(mkdtemp(home) != nullptr, "a directory for a key");
    setenv("XDG_DATA_HOME", home, 1);
    BackendOptions options;
    options.uri = "test:///default";
    auto* made =
        new Core(options, {.connected = [] {},
                           .disconnected = [](const std::string&) {},
                           .domain = [](const std::string&, const char*) {},
                           .pool = [](const std::string&) {},
                           .network = [] {}});
    made->connection.Open();
    std::filesystem::remove_all(home);
    // Nothing is taken apart below its threads.
    std::atexit([] { _exit(0); });
    return made;
  }();
  return *core;
}

}  // namespace
}  // namespace sbxfs::fuzz

extern "C" char* virDomainQemuAgentCommand(virDomainPtr, const char*, int,
                                           unsigned) {
  const std::string reply = sbxfs::fuzz::g_replies->Line();
  return reply.empty() ? nullptr : strdup(reply.c_str());
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sbxfs;
  using namespace sbxfs::fuzz;
  Core& core = TheCore();
  Bytes replies(data, size);
  g_replies = &replies;
  (void)Try([&] { (void)EndedByAgent(core, kUuid, 1); });
  const std::string script = replies.Line();
  (void)Try([&] { (void)BeginByAgent(core, kUuid, script, "input"); });
  (void)Try([&] {
    const auto result = EndedByAgent(core, kUuid, 1);
    if (result) Check(result->output.size() <= size, "no more than was said");
  });
  return 0;
}

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  (void)sbxfs::fuzz::TheCore();
  return 0;
}
