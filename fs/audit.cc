#include "fs/audit.h"

#include <fmt/format.h>

#include <cstring>

#include "fs/process.h"

namespace sbxfs {
namespace {

constexpr std::size_t kLongestValue = 256;

std::string Escape(std::string_view text, bool blanks) {
  std::string escaped;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < ' ' || byte == 0x7f || c == '\\' || (blanks && c == ' ')) {
      escaped += fmt::format("\\{:03o}", byte);
    } else {
      escaped += c;
    }
  }
  return escaped;
}

std::string ResultOf(int error) {
  if (error == 0) return "ok";
  const char* name = strerrorname_np(error);
  return name != nullptr ? name : fmt::to_string(error);
}

std::string FormatDeed(const Deed& deed, const Caller& who,
                       const Process& process, Time time, int error) {
  std::string line = fmt::format(
      "{} {} {} {} {} {} {}", FormatTime(time), who.uid, process.tgid,
      process.command.empty() ? "-" : Escape(process.command, true),
      deed.operation, Escape(deed.path, true), ResultOf(error));
  std::string_view value = deed.value;
  // Written where it does not belong, by mistake.
  if (value.find("PRIVATE KEY") != std::string_view::npos) value = "(hidden)";
  if (!value.empty()) {
    line += ' ' + Escape(value.substr(0, kLongestValue), false);
    if (value.size() > kLongestValue) line += "...";
  }
  return line + '\n';
}

// Who may see a line of it, without its text.
LogLine LineOf(const Tree& tree, const Caller& who, const Deed& deed) {
  LogLine line;
  line.uuid = deed.subject;
  line.by = who.uid;
  if (const auto sandbox = tree.backend.Get(deed.subject)) {
    line.uid = sandbox->uid;
    line.gid = sandbox->gid;
    line.mode = sandbox->mode;
  }
  return line;
}

}  // namespace

void Audit(Server& server, const RequestPtr& request, Deed deed) {
  LogLine line = LineOf(*server.tree, request->caller, deed);
  // Asked for now: who waits may be gone when it is answered.
  request->OnEnd([tree = server.tree, line = std::move(line),
                  deed = std::move(deed), who = request->caller,
                  process = ReadProcess(request->caller.pid)](int error) {
    LogLine told = line;
    told.time = std::chrono::system_clock::now();
    told.text = FormatDeed(deed, who, process, told.time, error);
    tree->Audit(std::move(told));
  });
}

void AuditDone(Tree& tree, const Caller& who, const Deed& deed) {
  LogLine line = LineOf(tree, who, deed);
  line.time = std::chrono::system_clock::now();
  line.text = FormatDeed(deed, who, ReadProcess(who.pid), line.time, 0);
  tree.Audit(std::move(line));
}

std::string PathOf(const Tree& tree, const Node& node) {
  std::string path = node.Place();
  if (!node.subject.empty() && path.starts_with(node.subject)) {
    const auto sandbox = tree.backend.Get(node.subject);
    if (sandbox) {
      path.replace(0, node.subject.size(),
                   (sandbox->trashed ? ".host/trash/" : "") + sandbox->name);
    }
  }
  return path == "/" ? "" : path;
}

}  // namespace sbxfs
