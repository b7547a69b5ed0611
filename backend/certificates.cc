#include "backend/certificates.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "backend/guest/boot.h"
#include "backend/guest/keys.h"
#include "backend/image/download.h"
#include "backend/util/capture.h"
#include "backend/util/text.h"
#include "backend/util/utc.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;
namespace stdfs = std::filesystem;

constexpr auto kLasts = 10min;

// ssh-keygen writes beside what it reads. There is nothing in it that is not
// public.
class ScratchDirectory {
 public:
  ScratchDirectory()
      : path_((stdfs::temp_directory_path() / "sbxfs-cert.XXXXXX").string()) {
    if (mkdtemp(path_.data()) == nullptr) {
      throw Error(errno, fmt::format("Cannot make directory '{}'", path_));
    }
  }
  ~ScratchDirectory() {
    std::error_code ignored;
    stdfs::remove_all(path_, ignored);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  [[nodiscard]] const std::string& Path() const { return path_; }

 private:
  std::string path_;
};

// As ssh-keygen -l and sshd's log have it.
std::string Fingerprint(std::string_view key) {
  const auto words = Split(key, ' ');
  const auto blob = words.size() < 2 ? std::nullopt : Base64Decode(words[1]);
  if (!blob) return "none";
  std::string text = Base64Encode(Sha256(*blob));
  while (text.ends_with('=')) text.pop_back();
  return "SHA256:" + text;
}

}  // namespace

std::string PrincipalOf(const std::string& uuid, Time revoked) {
  if (revoked == Time()) return uuid;
  return fmt::format("{}.{}", uuid,
                     std::chrono::duration_cast<std::chrono::milliseconds>(
                         revoked.time_since_epoch())
                         .count());
}

std::string AuthorityLine(const std::string& principal, const std::string& ca) {
  return fmt::format("cert-authority,principals=\"{}\" {} sbxfs-ca", principal,
                     ca);
}

std::string SignCertificate(const std::string& ca_file,
                            const CertificateRequest& request) {
  const ScratchDirectory scratch;
  const std::string file = scratch.Path() + "/key";
  std::ofstream(file + ".pub") << request.key << "\n";
  // A minute back: the guest's clock may be behind.
  const Captured made = Capture(
      {"ssh-keygen", "-q", "-s", ca_file, "-I", request.id, "-n",
       request.principal, "-V",
       fmt::format(
           "-1m:+{}m",
           std::chrono::duration_cast<std::chrono::minutes>(kLasts).count()),
       "-z", fmt::to_string(request.serial), file + ".pub"});
  std::ifstream in(file + "-cert.pub");
  std::stringstream text;
  text << in.rdbuf();
  if (made.status != 0 || text.str().empty()) {
    throw Error(EIO, fmt::format("Cannot certify the key: ssh-keygen ended "
                                 "with status {} ({})",
                                 made.status, LastWords(made.err)));
  }
  return text.str();
}

void Certificates::Certify(const Caller& caller, const std::string& uuid,
                           const std::string& key, Reply<Certificate> reply) {
  if (!key.empty()) CheckPublicKey(key);
  core_.workers.Run([this, caller, uuid, key, reply] {
    reply.Guard([&] { reply.Ok(CertifyNow(caller, uuid, key)); });
  });
}

Certificate Certificates::CertifyNow(const Caller& caller,
                                     const std::string& uuid,
                                     const std::string& key) {
  const SandboxPtr sandbox = core_.catalog.Get(uuid);
  if (sandbox == nullptr || sandbox->ssh_principal.empty()) {
    throw Error(EOPNOTSUPP,
                "Cannot certify the key: ssh.ca is not true; set it in "
                "config.yaml");
  }
  const std::string certified = key.empty() ? UsualKey(caller) : key;
  const uint64_t serial = NextSerial();
  const Time until = std::chrono::system_clock::now() + kLasts;
  Certificate made;
  made.text = SignCertificate(
      core_.ssh_ca_file,
      {certified, sandbox->ssh_principal,
       fmt::format("sbxfs: uid {} for {}", caller.uid, sandbox->name), serial});
  made.note =
      fmt::format("serial {} for uid {}, until {}, of key {}", serial,
                  caller.uid, FormatUtc(until) + "Z", Fingerprint(certified));
  core_.catalog.Report("certificate", made.note, sandbox.get());
  return made;
}

std::string Certificates::UsualKey(const Caller& caller) const {
  if (caller.uid == geteuid()) return core_.identity.public_key;
  const auto keys = DotSshPublicKeys(caller.uid);
  if (keys.empty()) {
    throw Error(ENOKEY,
                fmt::format("Cannot certify a key for uid {}: there is no "
                            "public key in its ~/.ssh that this mount can "
                            "read; write yours to ssh_cert, then read",
                            caller.uid));
  }
  const auto short_one = std::find_if(
      keys.begin(), keys.end(),
      [](const auto& one) { return one.starts_with("ssh-ed25519 "); });
  return short_one == keys.end() ? keys.front() : *short_one;
}

// The time of its issue, which no two share: nobody has to keep count.
uint64_t Certificates::NextSerial() {
  const auto now = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::system_clock::now().time_since_epoch());
  MutexLock lock(mutex_);
  last_serial_ = std::max(last_serial_ + 1, static_cast<uint64_t>(now.count()));
  return last_serial_;
}

void Certificates::Revoke(const std::string& uuid, const std::string& what) {
  core_.ChangeMeta(uuid, what, [](Metadata& meta) {
    meta.certificates_revoked = std::chrono::system_clock::now();
  });
  core_.ReadDone(uuid);
  core_.catalog.Report("certificates", "revoked",
                       core_.catalog.Get(uuid).get());
}

}  // namespace sbxfs
