// Requests of a guest that has a directory of this machine by reverse sshfs:
// whatever it asks, nothing but that directory is touched.
#include <endian.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <stdexcept>

#include "backend/mount/sftp.h"
#include "tests/fuzz/fuzz.h"

namespace sbxfs::fuzz {
namespace {

namespace stdfs = std::filesystem;

constexpr char kSecret[] = "nobody's business";

// A place with a directory to serve, and what lies beside it.
class Place {
 public:
  Place() {
    // In memory, where there is such a place.
    std::string name = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    name += "/sbxfs-fuzz.XXXXXX";
    Check(mkdtemp(name.data()) != nullptr, "a directory to serve");
    top_ = name;
    std::ofstream(top_ / "secret") << kSecret;
  }
  ~Place() { stdfs::remove_all(top_); }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  [[nodiscard]] UniqueFd Fresh() const {
    const stdfs::path root = top_ / "root";
    std::error_code error;
    if (stdfs::exists(root)) {
      stdfs::permissions(root, stdfs::perms::owner_all);
      stdfs::remove_all(root, error);
    }
    stdfs::create_directories(root / "dir");
    std::ofstream(root / "file") << "hello";
    std::ofstream(root / "dir/inner") << "inner";
    stdfs::create_symlink("../secret", root / "out");
    stdfs::create_symlink("file", root / "link");
    return UniqueFd(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  }
  void CheckOutside() const {
    std::stringstream text;
    text << std::ifstream(top_ / "secret").rdbuf();
    CheckSame(text.str(), kSecret, "what lies outside is as it was");
    size_t count = 0;
    for ([[maybe_unused]] const auto& entry : stdfs::directory_iterator(top_)) {
      ++count;
    }
    Check(count == 2, "nothing came to lie outside");
  }

 private:
  stdfs::path top_;
};

void Put32(std::string& to, uint32_t number) {
  number = htobe32(number);
  to.append(reinterpret_cast<const char*>(&number), sizeof number);
}
void PutString(std::string& to, const std::string& text) {
  Put32(to, static_cast<uint32_t>(text.size()));
  to += text;
}

// A request with strings that are whole; its bytes are as they come else.
std::string RequestFrom(Bytes& bytes) {
  constexpr uint8_t kTypes[] = {1,  3,  4,  5,  6,  7,  8,  9,  10, 11,
                                12, 13, 14, 15, 16, 17, 18, 19, 20, 200};
  constexpr const char* kWords[] = {"",
                                    ".",
                                    "/",
                                    "file",
                                    "dir",
                                    "dir/inner",
                                    "link",
                                    "out",
                                    "..",
                                    "../secret",
                                    "dir/../../secret",
                                    "new",
                                    "00000000",
                                    "00000001",
                                    "00000002",
                                    "posix-rename@openssh.com",
                                    "statvfs@openssh.com",
                                    "hardlink@openssh.com",
                                    "fsync@openssh.com",
                                    "fstatvfs@openssh.com"};
  std::string request;
  if (bytes.Byte() % 16 == 0) return bytes.Raw(bytes.Byte());
  request += static_cast<char>(kTypes[bytes.Byte() % std::size(kTypes)]);
  Put32(request, 7);
  for (size_t parts = bytes.Byte() % 6; parts > 0; --parts) {
    switch (bytes.Byte() % 6) {
      case 0:
      case 1:
        PutString(request, kWords[bytes.Byte() % std::size(kWords)]);
        break;
      case 2:
        PutString(request, bytes.Line());
        break;
      case 3:
        Put32(request, bytes.Byte());
        break;
      case 4:
        // An offset, or a size that is not to fill a disk.
        Put32(request, bytes.Byte() % 8 == 0 ? bytes.Byte() << 24 : 0);
        Put32(request, static_cast<uint32_t>(bytes.Number(2)));
        break;
      default:
        request += bytes.Raw(bytes.Byte() % 16);
    }
  }
  return request;
}

}  // namespace
}  // namespace sbxfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sbxfs;
  using namespace sbxfs::fuzz;
  static const Place place;
  // libFuzzer learns what it is looked for, and a guest may say that itself.
  if (Text(data, size).find("nobody") != std::string_view::npos) return 0;
  Bytes bytes(data, size);
  const bool writable = bytes.Flag();
  SftpServer server(Jail(place.Fresh(), writable),
                    Ownership{getuid(), {getgid()}, 1234, 5678});
  for (int i = 0; i < 50 && !bytes.Empty(); ++i) {
    const std::string request = RequestFrom(bytes);
    try {
      const std::string reply = server.Answer(request);
      Check(!reply.empty() && reply.size() <= SftpServer::kMaxPacket,
            "a reply of a size there is");
      Check(reply.find(kSecret) == reply.npos, "no secret is told");
    } catch (const std::invalid_argument&) {
      break;  // the connection ends
    }
  }
  place.CheckOutside();
  return 0;
}
