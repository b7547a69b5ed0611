#include "backend/guest/keys.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>

#include "backend/guest/ssh_handle.h"
#include "backend/util/error.h"
#include "backend/util/text.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

// Room for many keys; a file that is longer is no key file.
constexpr size_t kMaxKeyFile = 256 * 1024;

[[noreturn]] void FailOn(const std::string& path, const char* verb, int error) {
  throw Error(error, fmt::format("Cannot {} '{}': {}", verb, path,
                                 std::strerror(error)));
}

std::string PublicText(ssh_key key) {
  char* text = nullptr;
  if (ssh_pki_export_pubkey_base64(key, &text) != SSH_OK) {
    throw Error(EIO, "Cannot make 'ssh key': libssh gives no public key");
  }
  const SshPtr<char> owned(text);
  return std::string(ssh_key_type_to_char(ssh_key_type(key))) + " " + text;
}

// A regular file's content. Errno otherwise; EINVAL for another kind of file.
int ReadRegular(int directory, const char* path, std::string* content,
                struct stat* status) {
  // Opening alone can block, on a FIFO, or do something, on a device.
  if (fstatat(directory, path, status, 0) != 0) return errno;
  if (!S_ISREG(status->st_mode)) return EINVAL;
  const UniqueFd fd(
      openat(directory, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd.Valid() || fstat(fd.Get(), status) != 0) return errno;
  if (!S_ISREG(status->st_mode)) return EINVAL;
  std::array<char, 4096> buffer;
  ssize_t got;
  while ((got = read(fd.Get(), buffer.data(), buffer.size())) > 0) {
    content->append(buffer.data(), got);
    if (content->size() > kMaxKeyFile) return EFBIG;
  }
  return got < 0 ? errno : 0;
}

void MakeDirectories(const std::string& path) {
  if (path.empty() || path == "/" || mkdir(path.c_str(), 0700) == 0) return;
  if (errno == EEXIST) return;  // if it is no directory, open will say so
  if (errno != ENOENT) FailOn(path, "make directory", errno);
  const auto slash = path.find_last_of('/');
  if (slash == std::string::npos) FailOn(path, "make directory", ENOENT);
  MakeDirectories(path.substr(0, slash));
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    FailOn(path, "make directory", errno);
  }
}

// A complete file under a name of its own beside `path`, gone at destruction
// unless it was moved.
class Scratch {
 public:
  Scratch(const std::string& path, std::string_view content, mode_t mode)
      : name_(path + ".XXXXXX") {
    const UniqueFd fd(mkostemp(name_.data(), O_CLOEXEC));
    if (!fd.Valid()) {
      const int error = errno;
      name_.clear();
      FailOn(path, "make", error);
    }
    while (!content.empty()) {
      const ssize_t put = write(fd.Get(), content.data(), content.size());
      if (put < 0 && errno != EINTR) Fail(path);
      if (put > 0) content.remove_prefix(put);
    }
    // A crash must not leave an empty key under the final name.
    if (fchmod(fd.Get(), mode) != 0 || fsync(fd.Get()) != 0) Fail(path);
  }
  ~Scratch() {
    if (!name_.empty()) unlink(name_.c_str());
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // False when `path` is there already, which stays as it is.
  bool MoveIfMissing(const std::string& path) {
    if (renameat2(AT_FDCWD, name_.c_str(), AT_FDCWD, path.c_str(),
                  RENAME_NOREPLACE) == 0) {
      name_.clear();
      return true;
    }
    // NFS knows no RENAME_NOREPLACE, but links.
    if (errno == EINVAL && link(name_.c_str(), path.c_str()) == 0) return true;
    if (errno == EEXIST) return false;
    FailOn(path, "make", errno);
  }
  bool Replace(const std::string& path) {
    if (rename(name_.c_str(), path.c_str()) != 0) return false;
    name_.clear();
    return true;
  }

 private:
  [[noreturn]] void Fail(const std::string& path) {
    const int error = errno;
    unlink(name_.c_str());
    FailOn(path, "write", error);
  }

  std::string name_;
};

std::optional<KeyPair> Load(const std::string& path) {
  KeyPair pair;
  struct stat status {};
  const int error =
      ReadRegular(AT_FDCWD, path.c_str(), &pair.private_key, &status);
  if (error == ENOENT) return std::nullopt;
  if (error != 0) FailOn(path, "read", error);
  if ((status.st_mode & 077) != 0) {
    throw Error(EACCES,
                fmt::format("Cannot use '{0}': others may read it (mode "
                            "{1:04o}), so ssh refuses it; chmod 600 it, or "
                            "move it away and a new one is made",
                            path, status.st_mode & 07777));
  }
  const SshKeyPtr key = ImportPrivateKey(pair.private_key);
  if (!key) {
    throw Error(EINVAL,
                fmt::format("Cannot use '{}': it is damaged or has a "
                            "passphrase; move it away and a new one is made",
                            path));
  }
  pair.public_key = PublicText(key.get());
  return pair;
}

// For people who look for it; nothing of ours reads it, so failing is allowed.
void KeepPublicFile(const std::string& path, const std::string& public_key) {
  std::string have;
  struct stat status {};
  if (ReadRegular(AT_FDCWD, path.c_str(), &have, &status) == 0 &&
      have.starts_with(public_key)) {
    return;
  }
  try {
    (void)Scratch(path, public_key + " sbxfs\n", 0644).Replace(path);
  } catch (const Error&) {
  }
}

}  // namespace

SshKeyPtr ImportPrivateKey(const std::string& pem) {
  // The empty passphrase keeps OpenSSL from asking for one on the terminal.
  ssh_key key = nullptr;
  if (ssh_pki_import_privkey_base64(pem.c_str(), "", nullptr, nullptr, &key) !=
      SSH_OK) {
    return nullptr;
  }
  return SshKeyPtr(key);
}

SshKeyPtr ImportPublicKey(const std::string& line) {
  const auto parts = Split(line, ' ');
  if (parts.size() < 2) return nullptr;
  const auto type = ssh_key_type_from_name(std::string(parts[0]).c_str());
  ssh_key key = nullptr;
  if (type == SSH_KEYTYPE_UNKNOWN ||
      ssh_pki_import_pubkey_base64(std::string(parts[1]).c_str(), type, &key) !=
          SSH_OK) {
    return nullptr;
  }
  return SshKeyPtr(key);
}

KeyPair MakeKeyPair() {
  ssh_key raw = nullptr;
  if (ssh_pki_generate(SSH_KEYTYPE_ED25519, 0, &raw) != SSH_OK) {
    throw Error(EIO, "Cannot make 'ssh key': libssh refuses ed25519");
  }
  const SshKeyPtr key(raw);
  char* text = nullptr;
  if (ssh_pki_export_privkey_base64(key.get(), nullptr, nullptr, nullptr,
                                    &text) != SSH_OK) {
    throw Error(EIO, "Cannot make 'ssh key': libssh gives no private key");
  }
  const SshPtr<char> owned(text);
  return {text, PublicText(key.get())};
}

KeyPair LoadOrMakeKeyPair(const std::string& path) {
  std::optional<KeyPair> pair = Load(path);
  if (!pair) {
    const auto slash = path.find_last_of('/');
    if (slash != std::string::npos) MakeDirectories(path.substr(0, slash));
    KeyPair made = MakeKeyPair();
    if (Scratch(path, made.private_key, 0600).MoveIfMissing(path)) {
      pair = std::move(made);
    } else {
      pair = Load(path);
      if (!pair) FailOn(path, "read", ENOENT);
    }
  }
  KeepPublicFile(path + ".pub", pair->public_key);
  return *std::move(pair);
}

std::vector<std::string> PublicKeysIn(const std::string& directory) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(directory.c_str()),
                                                closedir);
  if (!dir) return {};
  std::vector<std::string> names;
  while (const dirent* entry = readdir(dir.get())) {
    if (std::string_view(entry->d_name).ends_with(".pub")) {
      names.emplace_back(entry->d_name);
    }
  }
  std::sort(names.begin(), names.end());
  std::vector<std::string> lines;
  for (const std::string& name : names) {
    std::string text;
    struct stat status {};
    if (ReadRegular(dirfd(dir.get()), name.c_str(), &text, &status) != 0) {
      continue;
    }
    for (const std::string_view whole : Split(text, '\n')) {
      const std::string_view line = Trim(whole);
      if (line.empty() || line.front() == '#') continue;
      try {
        CheckAuthorizedKeys(line);
        lines.emplace_back(line);
      } catch (const Error&) {
      }
    }
  }
  return lines;
}

std::vector<std::string> DotSshPublicKeys(uid_t uid) {
  std::vector<char> buffer(16 * 1024);
  passwd entry{};
  passwd* found = nullptr;
  while (getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found) ==
         ERANGE) {
    buffer.resize(buffer.size() * 2);
  }
  if (found == nullptr || entry.pw_dir == nullptr || *entry.pw_dir != '/') {
    return {};
  }
  return PublicKeysIn(std::string(entry.pw_dir) + "/.ssh");
}

}  // namespace sbxfs
