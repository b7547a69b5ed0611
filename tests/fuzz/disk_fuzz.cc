// Disks at rest: partitions, the chain of files below them, and the file
// systems in them with their journals. In this process, so that what goes wrong
// is seen; the daemon has all of it done by another one.
#include <cerrno>
#include <string>
#include <vector>

#include "backend/disk/disk_chain.h"
#include "backend/disk/ext_files.h"
#include "backend/disk/reader_wire.h"
#include "backend/disk/root_partition.h"
#include "tests/fuzz/fuzz.h"

namespace sbxfs::fuzz {
namespace {

constexpr size_t kMostImage = 4 << 20;
// libext2fs goes where damage leads it, around in circles too: the daemon
// counts its time, this the reads.
constexpr int kMostReads = 20'000;
constexpr int kMostFiles = 200;

// A file that is mostly zeros: how many times 16 of them, how many bytes come
// then, those bytes, and so on.
std::string Unrolled(Bytes& bytes) {
  std::string file;
  while (!bytes.Empty() && file.size() < kMostImage) {
    file.append(bytes.Number(2) * 16, '\0');
    const uint64_t count = bytes.Number(2);
    file += bytes.Raw(count);
  }
  file.resize(std::min(file.size(), kMostImage));
  return file;
}

class Walk {
 public:
  explicit Walk(ExtFiles& files) : files_(files) {}

  void Through(const std::string& path, int depth) {
    (void)Try([&] {
      for (const FileTree::Entry& entry : files_.List(path)) {
        const std::string& name = entry.name;
        const FileFacts& facts = entry.facts;
        if (++seen_ > kMostFiles) return;
        Check(!name.empty() && name.find('/') == name.npos, "a name can be one",
              name);
        const std::string at = path.empty() ? name : path + '/' + name;
        WireWriter words;
        words.Facts(facts);
        CheckSame(WireWriter().Facts(WireReader(words.Bytes()).Facts()).Bytes(),
                  words.Bytes(), "facts come over as they are");
        (void)Try([&] { (void)files_.Look(at); });
        (void)Try([&] { (void)files_.Target(at); });
        (void)Try([&] {
          const uint64_t number = files_.Find(at);
          for (const uint64_t offset :
               {uint64_t{0}, facts.size / 2, uint64_t{1} << 40}) {
            Check(files_.Read(number, offset, 70'000).size() <= 70'000,
                  "no more than asked for");
          }
        });
        if (depth > 0) Through(at, depth - 1);
      }
    });
  }

 private:
  ExtFiles& files_;
  int seen_ = 0;
};

void CheckDisk(std::vector<ChainFile> files,
               const std::vector<std::string>& contents) {
  int reads = 0;
  DiskChain chain(
      std::move(files), [&](size_t file, uint64_t offset, size_t size) {
        Check(file < contents.size() && offset <= contents[file].size() &&
                  size <= contents[file].size() - offset,
              "nothing is read from beyond the end");
        return contents[file].substr(offset, size);
      });
  const auto read = [&](uint64_t offset, size_t size) {
    if (++reads > kMostReads) throw Error(ETIMEDOUT, "Cannot read: enough");
    std::string bytes = chain.Read(offset, size);
    Check(bytes.size() <= size, "no more than asked for");
    return bytes;
  };
  const ByteSource disk{"the disk", chain.Size(), read};
  for (const Partition& partition : ExtPartitions(disk)) {
    Check(disk.Has(partition.offset, partition.size), "a part is of the disk");
    (void)Try([&] {
      ExtFiles found(
          [&](uint64_t offset, size_t size) {
            return read(partition.offset + offset, size);
          },
          partition.size);
      Walk(found).Through("", 3);
    });
  }
}

}  // namespace
}  // namespace sbxfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sbxfs;
  using namespace sbxfs::fuzz;
  Bytes bytes(data, size);
  const uint8_t kind = bytes.Byte();
  (void)Try([&] {
    std::string file = Unrolled(bytes);
    if (kind % 3 == 0) {
      CheckDisk({{"raw", file.size(), "raw"}}, {file});
    } else if (kind % 3 == 1) {
      CheckDisk({{"alone", file.size(), "qcow2"}}, {file});
    } else {
      // A layer of 256 KiB on the rest.
      const std::string base =
          file.substr(std::min<size_t>(file.size(), 262144));
      file.resize(std::min<size_t>(file.size(), 262144));
      CheckDisk({{"top", file.size(), "qcow2"}, {"base", base.size(), "raw"}},
                {file, base});
    }
  });
  // What the process that reads disks might say.
  (void)Try([&] {
    WireReader words(Text(data, size));
    while (!words.Empty()) {
      (void)words.Text();
      (void)words.Facts();
    }
  });
  (void)Try([&] { (void)WireReader(Text(data, size)).Files(); });
  return 0;
}
