// A guest goes on from a memory template by libvirt's own calls, without
// sbxfs: it is restored, and its agent runs a command to its end. What sbxfs
// takes more than this is its own.
//
//   bench_bare URI DOMAIN IMAGE COMMAND
//
// IMAGE is a save image of libvirt's, COMMAND a file with a `guest-exec` for
// the agent. Says how many seconds both took together, and the restore alone.

#include <libvirt/libvirt-qemu.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kPatience = 60s;
constexpr auto kPause = 10ms;
constexpr int kAgentSeconds = 5;

// What the agent returns; null when it does not answer.
nlohmann::json Ask(virDomainPtr domain, const std::string& command) {
  char* reply =
      virDomainQemuAgentCommand(domain, command.c_str(), kAgentSeconds, 0);
  if (reply == nullptr) return nullptr;
  const auto parsed =
      nlohmann::json::parse(reply, nullptr, /*allow_exceptions=*/false);
  std::free(reply);
  return parsed.is_object() ? parsed.value("return", nlohmann::json())
                            : nlohmann::json();
}

// Runs the command; its exit code, or -1 when it did not end.
int RunInGuest(virDomainPtr domain, const std::string& command) {
  const auto until = Clock::now() + kPatience;
  std::string question;
  while (Clock::now() < until) {
    const nlohmann::json answer =
        Ask(domain, question.empty() ? command : question);
    if (question.empty() && answer.is_object()) {
      question = nlohmann::json{{"execute", "guest-exec-status"},
                                {"arguments", {{"pid", answer["pid"]}}}}
                     .dump();
    } else if (answer.is_object() && answer.value("exited", false)) {
      return answer.value("exitcode", -1);
    }
    std::this_thread::sleep_for(kPause);
  }
  return -1;
}

double Since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// An agent that does not answer yet is no news.
void Ignore(void*, virErrorPtr) {}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 1;
  std::ifstream file(argv[4]);
  const std::string command(std::istreambuf_iterator<char>(file), {});
  virConnectPtr connection = virConnectOpen(argv[1]);
  if (connection == nullptr) return 1;
  const auto begin = Clock::now();
  if (virDomainRestoreFlags(connection, argv[3], nullptr,
                            VIR_DOMAIN_SAVE_RUNNING) < 0) {
    return 1;
  }
  const double restored = Since(begin);
  virSetErrorFunc(nullptr, Ignore);
  virDomainPtr domain = virDomainLookupByName(connection, argv[2]);
  if (domain == nullptr) return 1;
  const int code = RunInGuest(domain, command);
  const double all = Since(begin);
  virDomainFree(domain);
  virConnectClose(connection);
  if (code != 0) {
    std::fprintf(stderr, "the command ended with %d\n", code);
    return 1;
  }
  std::printf("%.6f %.6f\n", all, restored);
  return 0;
}
