#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "tests/support/mounted.h"

// Editors on config.yaml, each with the ways it saves a file.

namespace sbxfs {
namespace {

using testing::HasSubstr;

class Editors : public Mounted {
 protected:
  void SetUp() override {
    Mounted::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    Do("mkdir box; echo 'cpus: 3' > box/config.yaml");
  }
  bool Has(const std::string& program) {
    return Sh("command -v " + program).status == 0;
  }
};

TEST_F(Editors, VimInAllItsManners) {
  if (!Has("vim")) GTEST_SKIP() << "there is no vim";
  int cpus = 3;
  for (const char* set : {"set nocompatible", "set backupcopy=no",
                          "set backupcopy=yes", "set backup backupcopy=auto",
                          "set nowritebackup", "set nobackup noswapfile"}) {
    const std::string from = std::to_string(cpus);
    const std::string to = std::to_string(++cpus);
    Do("HOME=$PWD/.. vim -Nu NONE -es -c '" + std::string(set) + "' -c '%s/" +
       from + "/" + to + "/' -c wq box/config.yaml");
    EXPECT_EQ(Do("cat box/config.yaml box/cpus"),
              "cpus: " + to + "\n" + to + "\n")
        << set;
  }
  Do("rm -f box/config.yaml~");
  EXPECT_EQ(Do("ls -a box | grep -v '^[a-zA-Z_]' | tr '\\n' ' '"), ". .. ");
}

TEST_F(Editors, VimIsToldOfARefusal) {
  if (!Has("vim")) GTEST_SKIP() << "there is no vim";
  EXPECT_NE(Sh("HOME=$PWD/.. vim -Nu NONE -es -c '%s/cpus/cpsu/' -c 'wq' "
               "box/config.yaml")
                .status,
            0);
  EXPECT_EQ(Do("cat box/config.yaml"), "cpus: 3\n");
}

TEST_F(Editors, VimOfASandboxesYaml) {
  if (!Has("vim")) GTEST_SKIP() << "there is no vim";
  Do("HOME=$PWD/.. vim -Nu NONE -es -c '%s/3/4/' -c wq box.yaml");
  EXPECT_EQ(Do("cat box/cpus; ls -A"), "4\n.host\nbox\n");
}

// An editor in a terminal: keys for tmux, with a pause after each group.
struct Terminal {
  const char* name;
  const char* command;
  std::vector<const char*> good;  // makes it `cpus: 6` and leaves
  std::vector<const char*> bad;   // tries to make it `cpsu: 6`
  const char* told;               // on the screen then
};

// For the names of tests.
void PrintTo(const Terminal& terminal, std::ostream* out) {
  *out << terminal.name;
}

const Terminal kTerminals[] = {
    {"nano",
     "nano -I box/config.yaml",
     {"C-k 'cpus: 6' C-o", "Enter", "C-x"},
     {"C-k 'cpsu: 6' C-o", "Enter"},
     "Invalid argument"},
    {"vim",
     "vim -Nu NONE -c 'set undofile' box/config.yaml",
     {"dd 'icpus: 6' Escape", "':wq' Enter"},
     {"dd 'icpsu: 6' Escape", "':w' Enter"},
     "E512: Close failed"},
    {"emacs",
     "emacs -nw -Q box/config.yaml",
     {"C-k 'cpus: 6' C-x C-s", "C-x C-c"},
     {"C-k 'cpsu: 6' C-x C-s", ""},
     "nvalid argument"},
};

class InATerminal : public Editors,
                    public testing::WithParamInterface<Terminal> {
 protected:
  // Once the text is on the screen, types `keys`; what is on the screen when it
  // has `told` or the editor has ended.
  std::string Screen(const std::vector<const char*>& keys, const char* told) {
    const std::string pause =
        GetParam().name == std::string("emacs") ? "2" : "0.7";
    std::string script =
        "export HOME=$PWD/.. TMUX_TMPDIR=$PWD/..; "
        "t=\"tmux -L sbxfs$$ -f /dev/null\"; "
        "until_told() { for i in $(seq 300); do "
        "s=$($t capture-pane -p 2>/dev/null) || break; "
        "case $s in *\"$1\"*) break;; esac; sleep 0.1; done; }; "
        "$t new-session -d -x 160 -y 24 \"" +
        std::string(GetParam().command) + "\"; until_told cpus; ";
    for (const char* group : keys) {
      script += "sleep " + pause + "; $t send-keys " + std::string(group) +
                " 2>/dev/null; ";
    }
    return Do(script + "until_told '" + told +
              "'; echo \"$s\"; $t kill-server 2>/dev/null; true");
  }
};

TEST_P(InATerminal, SavesWellAndIsRefusedWell) {
  if (!Has(GetParam().name) || !Has("tmux")) GTEST_SKIP() << "not installed";
  (void)Screen(GetParam().good, "no such text");
  EXPECT_EQ(Do("cat box/config.yaml box/cpus"), "cpus: 6\n6\n");
  EXPECT_THAT(Screen(GetParam().bad, GetParam().told),
              HasSubstr(GetParam().told));
  EXPECT_EQ(Do("cat box/config.yaml box/cpus"), "cpus: 6\n6\n");
  EXPECT_EQ(Do("cat box/config.yaml.rejected"), "cpsu: 6\n");
  EXPECT_THAT(Do("cat box/error"), HasSubstr("line 1"));
}
INSTANTIATE_TEST_SUITE_P(Editors, InATerminal, testing::ValuesIn(kTerminals),
                         [](const auto& info) { return info.param.name; });

// Each way to save puts `cpus: TO` over `cpus: FROM`; the same way is refused
// when it puts `cpsu`.
struct Way {
  const char* name;
  const char* needs;
  const char* script;  // with FROM and TO for the two texts
  bool told = true;    // the program ends with a failure when it is refused
};

const Way kWays[] = {
    {"sed -i", "sed", "sed -i 's/FROM/TO/' box/config.yaml"},
    {"sed -i.bak", "sed",
     "sed -i.bak 's/FROM/TO/' box/config.yaml; s=$?; "
     "rm -f box/config.yaml.bak; exit $s"},
    {"perl -i", "perl", "perl -i -pe 's/FROM/TO/' box/config.yaml", false},
    {"tee", "tee", "echo 'TO' | tee box/config.yaml"},
    {"cat >", "cat", "echo 'TO' | cat > box/config.yaml"},
    {"echo >", "bash", "echo 'TO' > box/config.yaml", false},
    {"cp", "cp", "echo 'TO' > ../new; cp ../new box/config.yaml"},
    {"cp --remove-destination", "cp",
     "echo 'TO' > ../new; cp --remove-destination ../new box/config.yaml"},
    {"mv", "mv", "echo 'TO' > ../new; mv ../new box/config.yaml"},
    {"install -D", "install",
     "echo 'TO' > ../new; install -D -m 644 ../new box/config.yaml"},
    {"dd", "dd", "echo 'TO' | dd status=none conv=fsync of=box/config.yaml"},
    {"rsync", "rsync", "echo 'TO' > ../new; rsync -c ../new box/config.yaml"},
    {"rsync -a --inplace", "rsync",
     "echo 'TO' > ../new; rsync -ac --inplace ../new box/config.yaml"},
    {"python open w", "python3",
     "python3 -c 'with open(\"box/config.yaml\", \"w\") as f: "
     "f.write(\"TO\\n\")'"},
    {"pathlib after reading", "python3",
     "python3 -c 'import pathlib; p = pathlib.Path(\"box/config.yaml\"); "
     "p.write_text(p.read_text().replace(\"FROM\", \"TO\"))'"},
    // Reads all, writes a named temporary file beside it, renames: crudini,
    // and most programs that write atomically.
    {"a rewriter", "python3",
     "python3 -c 'import os, tempfile; t = open(\"box/config.yaml\").read(); "
     "f = tempfile.NamedTemporaryFile(\"w\", dir=\"box\", delete=False); "
     "f.write(t.replace(\"FROM\", \"TO\")); f.flush(); os.fsync(f.fileno()); "
     "f.close(); os.chmod(f.name, 0o644); "
     "os.rename(f.name, \"box/config.yaml\")'"},
    // QSaveFile: kate.
    {"kate", "python3",
     "python3 -c 'import os; n = \"box/config.yaml.XyZaBc\"; "
     "f = os.open(n, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666); "
     "os.write(f, b\"TO\\n\"); os.fsync(f); os.fchmod(f, 0o600); os.close(f); "
     "os.rename(n, \"box/config.yaml\")'"},
    // VS Code truncates and writes in place, then syncs the data.
    {"VS Code", "python3",
     "python3 -c 'import os; f = os.open(\"box/config.yaml\", os.O_RDWR); "
     "os.ftruncate(f, 0); os.pwrite(f, b\"TO\\n\", 0); os.fdatasync(f); "
     "os.close(f)'"},
    {"VS Code, new", "python3",
     "python3 -c 'import os; f = os.open(\"box/config.yaml\", "
     "os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666); os.write(f, b\"TO\\n\"); "
     "os.fdatasync(f); os.close(f)'"},
    {"git apply", "git",
     "printf '%s\\n' '--- a/box/config.yaml' '+++ b/box/config.yaml' "
     "'@@ -1 +1 @@' '-FROM' '+TO' | git apply"},
    {"patch", "patch",
     "printf '%s\\n' '--- box/config.yaml' '+++ box/config.yaml' "
     "'@@ -1 +1 @@' '-FROM' '+TO' | patch -p0"},
    {"git checkout", "git",
     "git init -q ../repo; export GIT_DIR=$PWD/../repo/.git; "
     "export GIT_WORK_TREE=$PWD; echo 'TO' > ../new; "
     "git update-index --add --cacheinfo "
     "100644,$(git hash-object -w ../new),box/config.yaml; "
     "git checkout -f -- box/config.yaml",
     false},
    {"vim", "vim", "vim -Nu NONE -es -c '%s/FROM/TO/' -c wq box/config.yaml"},
    {"vim, copying", "vim",
     "vim -Nu NONE -es -c 'set backupcopy=yes undofile' -c '%s/FROM/TO/' "
     "-c wq box/config.yaml; s=$?; rm -f box/.config.yaml.un~; exit $s"},
    {"emacs", "emacs",
     "emacs --batch -Q box/config.yaml --eval '(progn (goto-char (point-min)) "
     "(while (search-forward \"FROM\" nil t) (replace-match \"TO\" t t)) "
     "(save-buffer))'; s=$?; rm -f box/config.yaml~; exit $s"},
};

std::string Filled(const Way& way, const std::string& from,
                   const std::string& to) {
  std::string script = "export HOME=$PWD/..; " + std::string(way.script);
  for (const auto& [word, text] :
       {std::pair<std::string, std::string>{"FROM", from}, {"TO", to}}) {
    for (size_t at = 0; (at = script.find(word, at)) != std::string::npos;) {
      script.replace(at, word.size(), text);
      at += text.size();
    }
  }
  return script;
}

TEST_F(Editors, EveryWaySavesWellAndIsRefusedWell) {
  int cpus = 3;
  for (const Way& way : kWays) {
    SCOPED_TRACE(way.name);
    if (!Has(way.needs)) {
      std::printf("no %s\n", way.needs);
      continue;
    }
    const std::string from = "cpus: " + std::to_string(cpus);
    cpus = cpus % 7 + 1;
    const std::string to = "cpus: " + std::to_string(cpus);
    Do(Filled(way, from, to));
    EXPECT_EQ(Do("cat box/config.yaml"), to + "\n");
    EXPECT_EQ(Do("cat box/cpus"), to.substr(6) + "\n");
    EXPECT_EQ(Do("ls -A box | grep -E '^[.#]|~$|tmp|sed|XyZ|orig' || true"),
              "");
    const std::string bad = "cpsu: " + std::to_string(cpus);
    const Ended refused = Sh(Filled(way, to, bad));
    if (way.told) {
      EXPECT_NE(refused.status, 0) << refused.out << refused.err;
    }
    EXPECT_EQ(Do("cat box/config.yaml"), to + "\n");
    EXPECT_EQ(Do("cat box/config.yaml.rejected"), bad + "\n");
    EXPECT_THAT(Do("cat box/error"), HasSubstr("line 1"));
    EXPECT_NE(Sh("echo start > box/status").status, 0);
    EXPECT_EQ(Do("cat box/status"), "stopped\n");
    // What a program leaves of itself when it fails is its own.
    Do("rm -f box/config.yaml.rejected box/tmp* box/*XyZaBc box/config.yaml~");
  }
}

TEST_F(Editors, ALaterSaveOfAnOlderTextIsRefused) {
  Do("python3 - <<'E'\n"
     "import subprocess\n"
     "t = open('box/config.yaml').read()\n"
     "subprocess.run('echo 4 > box/cpus', shell=True, check=True)\n"
     "try:\n"
     "  open('box/config.yaml', 'w').write(t + '# mine\\n')\n"
     "  f = open('box/config.yaml', 'w'); f.write(t + '# mine\\n'); f.close()\n"
     "  raise SystemExit('was taken')\n"
     "except OSError as e:\n"
     "  assert e.errno == 116, e\n"
     "t = open('box/config.yaml').read()\n"
     "assert t == 'cpus: 4\\n', t\n"
     "f = open('box/config.yaml', 'w'); f.write(t + '# mine\\n'); f.close()\n"
     "E");
  EXPECT_EQ(Do("cat box/config.yaml"), "cpus: 4\n# mine\n");
}

TEST_F(Editors, AnyFileTakesAFinishedScratchFile) {
  Do("write() { echo \"$2\" > box/$1.tmp.$$ && mv box/$1.tmp.$$ box/$1; }; "
     "write cpus 5; write description mine; write memory 1GiB; "
     "write status start; write autostart no");
  EXPECT_EQ(Do("cat box/cpus box/description box/memory box/status"),
            "5\nmine\n1GiB\nrunning\n");
  EXPECT_NE(
      Sh("echo fly > box/status.tmp; mv box/status.tmp box/status").status, 0);
  EXPECT_EQ(Do("rm box/status.tmp; ls -A box | grep tmp || true"), "");
}

}  // namespace
}  // namespace sbxfs
