#include <fmt/format.h>

#include "backend/util/text.h"
#include "fs/layout.h"
#include "fs/show.h"
#include "fs/tree.h"

// The README files: made from the table, with live values.

namespace sbxfs::show {
namespace {

// The names of a directory's rows that `take` wants, in lines of 78.
template <typename Take>
std::string Names(DirKind dir, Take take) {
  std::string text;
  std::string line;
  for (const Row& row : Rows(dir)) {
    if (!take(row)) continue;
    if (line.size() + 1 + row.name.size() > 76) {
      text += " " + line + '\n';
      line.clear();
    }
    line +=
        fmt::format(" {}{}", row.name, row.form == Form::kDirectory ? "/" : "");
  }
  return text + (line.empty() ? "" : " " + line + '\n');
}

bool IsWritten(const Row& row) { return row.store != nullptr; }
bool IsReadOnly(const Row& row) {
  return row.store == nullptr && row.form != Form::kDirectory;
}
bool IsDirectory(const Row& row) { return row.form == Form::kDirectory; }

template <typename Take>
std::string Helps(DirKind dir, Take take) {
  std::string text;
  for (const Row& row : Rows(dir)) {
    if (!take(row)) continue;
    text += fmt::format("  {:<16} {}\n",
                        std::string(row.name) + (IsDirectory(row) ? "/" : ""),
                        row.help);
  }
  return text;
}

// The lists of what a sandbox, or .host, has.
std::string Files(DirKind dir) {
  return "to read and write:\n" + Names(dir, IsWritten) + "to read:\n" +
         Names(dir, IsReadOnly) + Helps(dir, IsDirectory);
}

}  // namespace

std::string HostReadme(const View& view) {
  const std::string& at = view.tree.options.mount_point;
  const bool connected = view.host->connected;
  return fmt::format(
             "Each directory in {0} is a sandbox: a virtual machine on {1}{2}\n"
             "\n"
             "  cd {0}\n"
             "  mkdir box                        make one, stopped\n"
             "  echo 4GiB > box/memory           set it up; or edit "
             "box/config.yaml\n"
             "  cp ~/agent.yaml box.yaml         make one from a file\n"
             "  echo start > box/status          boot it, back when usable\n"
             "  ssh -F .host/ssh_config sbx-box  boot it if need be, go in\n"
             "  exec 3<>box/exec/new; echo make >&3; cat <&3   a command in "
             "it\n"
             "  ls box/fs/etc                    the running guest's files, as "
             "its user\n"
             "  echo /src:w > box/mounts/src     this machine's /src in it, "
             "to write\n"
             "  echo 8080 > box/ports/80         its port 80 as 8080 here\n"
             "  mkdir box/snapshots/a            keep its state, while it "
             "runs\n"
             "  echo a > box/snapshot            go back to that\n"
             "  mkdir box/clones/twin            another one of it\n"
             "  echo stop > box/status           shut it down; kill if it "
             "hangs\n"
             "  rmdir box                        destroy it: to .host/trash\n"
             "  mv .host/trash/box .             undo that\n"
             "\n"
             "When a command fails: cat box/error, or .host/error if there is "
             "no box.\nTo wait: echo wait running > box/status, or poll(2); "
             "inotify does not work.\nA write is one command; its errno is the "
             "verdict. sbxfs(5) has it all.\nIn box/, ",
             at, view.host->uri, connected ? "" : " (not connected)") +
         Files(DirKind::kSandbox) + "In .host/, " + Files(DirKind::kHost);
}

std::string SandboxReadme(const View& view) {
  const Sandbox& sandbox = *view.sandbox;
  const std::string dir = view.tree.options.mount_point + '/' + sandbox.name;
  const std::string error = SandboxError(view);
  std::string text = fmt::format(
      "Sandbox {}: {}{}{}\n"
      "{} cpus, {} memory, {} disk, user {}, ssh port {}\n"
      "\n"
      "  echo start > {}/status\n"
      "  ssh -F {}/ssh_config sbx-{}\n"
      "  echo stop > {}/status\n"
      "\n"
      "Verbs of status: {}, wait STATE\n"
      "ready: {}"
      "error: {}"
      "\n"
      "Here, ",
      sandbox.name, StateName(sandbox.state),
      sandbox.reason.empty() ? "" : ", ", sandbox.reason, sandbox.cpus,
      FormatSize(sandbox.memory), FormatSize(sandbox.disk), sandbox.user,
      sandbox.ssh_port, dir, dir, sandbox.name, dir, VerbList(), Ready(view),
      error.empty() ? "none\n" : error);
  return text + Files(DirKind::kSandbox) +
         "What each is: sbxfs(5), and ../.host/README\n";
}

}  // namespace sbxfs::show
