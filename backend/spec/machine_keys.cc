// The keys of the machine itself: images, arch, CPU type.
#include <array>
#include <cctype>

#include "backend/spec/readers.h"
#include "backend/spec/value.h"
#include "backend/util/text.h"
#include "backend/util/utf8.h"

namespace sbxfs {
namespace {

using enum ValueType;

constexpr std::array<std::string_view, 4> kArchs = {"x86_64", "aarch64",
                                                    "armv7l", "riscv64"};
// Lima's lists of images have these too; they are never chosen here.
constexpr std::array<std::string_view, 2> kOtherArchs = {"ppc64le", "s390x"};

// A model, and what is added to it or taken from it; or nothing.
bool IsCpuType(std::string_view text) {
  if (text.empty()) return true;
  if (text.size() > 200 || !Consists(text.substr(0, 1), "")) return false;
  bool model = true;
  for (std::string_view part : Split(text, ',')) {
    if (!model && (part.starts_with('+') || part.starts_with('-'))) {
      part.remove_prefix(1);
    }
    const auto equals = model ? part.npos : part.find('=');
    if (!Consists(part.substr(0, equals), "._-") ||
        (equals != part.npos && !Consists(part.substr(equals + 1), "._-"))) {
      return false;
    }
    model = false;
  }
  return true;
}

bool IsImageLocation(const std::string& location) {
  if (location.empty() || !IsPlainLine(location)) return false;
  const auto after = [&](std::string_view scheme) {
    return location.starts_with(scheme) && location.size() > scheme.size() &&
           location.find(' ') == std::string::npos;
  };
  if (after("https://") || after("http://localhost/") ||
      after("http://localhost:") || after("http://127.0.0.1/") ||
      after("http://127.0.0.1:") || location.starts_with('/')) {
    return true;
  }
  return location.find('/') == std::string::npos && location[0] != '.' &&
         location[0] != '~';
}

std::string ReadLocation(const Value& value) {
  constexpr char kAllowed[] =
      "a name in .host/images, an absolute path or an https URL";
  std::string location = value.Text(kAllowed);
  if (!IsImageLocation(location)) throw value.Wrong(kAllowed);
  return location;
}

std::string ReadDigest(const Value& value) {
  constexpr char kAllowed[] =
      "'sha256:' and 64, or 'sha512:' and 128 hexadecimal digits";
  std::string digest = value.Text(kAllowed);
  const auto colon = std::min(digest.find(':'), digest.size());
  const std::string_view algorithm = std::string_view(digest).substr(0, colon);
  const std::string_view digits =
      std::string_view(digest).substr(std::min(colon + 1, digest.size()));
  const std::size_t length =
      algorithm == "sha256" ? 64 : (algorithm == "sha512" ? 128 : 0);
  const bool hex = std::all_of(digits.begin(), digits.end(), [](char c) {
    return std::isxdigit(static_cast<unsigned char>(c)) != 0;
  });
  if (length == 0 || digits.size() != length || !hex) {
    throw value.Wrong(kAllowed);
  }
  return digest;
}

std::string ReadImageArch(const Value& value) {
  std::string arch = value.Text("an architecture");
  for (const std::string_view other : kOtherArchs) {
    if (arch == other) return arch;
  }
  return value.OneOf(kArchs);
}

// A file that an image boots with.
struct BootFile {
  std::string location, arch, digest, cmdline;
};

constexpr Key<BootFile> kInitrdKeys[] = {
    {"arch", kText,
     [](const Value& v, BootFile& file) { file.arch = ReadImageArch(v); }},
    {"digest", kText,
     [](const Value& v, BootFile& file) { file.digest = ReadDigest(v); }},
    {"location", kText,
     [](const Value& v, BootFile& file) { file.location = ReadLocation(v); }},
};
constexpr Key<BootFile> kKernelKeys[] = {
    kInitrdKeys[0],
    {"cmdline", kText,
     [](const Value& v, BootFile& file) {
       file.cmdline = v.Line("a kernel's command line");
     }},
    kInitrdKeys[1],
    kInitrdKeys[2],
};

template <std::size_t size>
BootFile ReadBootFile(const Value& value, const Key<BootFile> (&keys)[size]) {
  BootFile file;
  ReadMap(value, keys, file);
  if (file.location.empty()) {
    throw value.Fault(
        "has no location; add one, as in 'location: /boot/vmlinuz'");
  }
  return file;
}

constexpr Key<ImageSource> kImageKeys[] = {
    {"arch", kText,
     [](const Value& v, ImageSource& image) { image.arch = ReadImageArch(v); }},
    {"digest", kText,
     [](const Value& v, ImageSource& image) { image.digest = ReadDigest(v); }},
    {"initrd", kText,
     [](const Value& v, ImageSource& image) {
       const BootFile file = ReadBootFile(v, kInitrdKeys);
       image.initrd = file.location;
       image.initrd_digest = file.digest;
     }},
    {"kernel", kText,
     [](const Value& v, ImageSource& image) {
       const BootFile file = ReadBootFile(v, kKernelKeys);
       image.kernel = file.location;
       image.kernel_digest = file.digest;
       image.kernel_cmdline = file.cmdline;
     }},
    {"location", kText,
     [](const Value& v, ImageSource& image) {
       image.location = ReadLocation(v);
     }},
};

ImageSource ReadImage(const Value& value) {
  ImageSource image;
  if (value.IsScalar()) {
    throw value.Wrong("a map, as in 'location: debian-12'");
  }
  ReadMap(value, kImageKeys, image);
  if (image.location.empty()) {
    throw value.Fault("has no location; add one, as in 'location: debian-12'");
  }
  if (!image.initrd.empty() && image.kernel.empty()) {
    throw value.Fault("has an initrd, but no kernel; add one, or remove it");
  }
  return image;
}

constexpr Key<Spec> kQemuKeys[] = {
    {"cpuType", kText, ReadCpuType},
    {"minimumVersion", kText,
     [](const Value& v, Spec&) { (void)v.Line("a version, as in '7.2.0'"); }},
};

constexpr Key<Spec> kRosettaReaders[] = {
    {"binfmt", kPlain, [](const Value& v, Spec&) { (void)v.Bool(); }},
    {"enabled", kPlain, [](const Value& v, Spec&) { (void)v.Bool(); }},
};
constexpr Key<Spec> kVzKeys[] = {
    {"diskImageFormat", kText,
     [](const Value& v, Spec&) { (void)v.Line("a format"); }},
    {"memoryBalloonTargetPercent", kPlain,
     [](const Value& v, Spec&) { (void)v.Text("a number"); }},
    {"rosetta", kText,
     [](const Value& v, Spec& spec) { ReadMap(v, kRosettaReaders, spec); }},
};
constexpr Key<Spec> kVmKeys[] = {
    {"qemu", kText,
     [](const Value& v, Spec& spec) { ReadMap(v, kQemuKeys, spec); }},
    {"vz", kText,
     [](const Value& v, Spec& spec) { ReadMap(v, kVzKeys, spec); }},
};

}  // namespace

bool IsArch(std::string_view text) {
  return std::find(kArchs.begin(), kArchs.end(), text) != kArchs.end();
}

void ReadArch(const Value& value, Spec& spec) {
  const std::string allowed =
      fmt::format("one of {}, or default", fmt::join(kArchs, ", "));
  const std::string arch = value.Text(allowed);
  if (arch != "default" && !IsArch(arch)) throw value.Wrong(allowed);
  spec.arch = arch == "default" ? "" : arch;
}

void ReadCpuType(const Value& value, Spec& spec) {
  if (!value.IsMap()) {
    throw value.Wrong("a map of CPU types by architecture");
  }
  for (const YamlEntry& entry : value.Node().entries) {
    const bool other = std::find(kOtherArchs.begin(), kOtherArchs.end(),
                                 entry.key.value) != kOtherArchs.end();
    if (!IsArch(entry.key.value) && !other) {
      throw UnknownKey(value.Key(), entry.key, {kArchs.begin(), kArchs.end()});
    }
    if (entry.value.kind == YamlNode::Kind::kNull || other) continue;
    const Value one = value.Child(entry.key.value, entry.value);
    constexpr char kType[] =
        "a CPU type as QEMU names it, as in 'max' or 'Nehalem,+aes'";
    const std::string type = one.Text(kType);
    if (!IsCpuType(type)) throw one.Wrong(kType);
    spec.cpu_types[entry.key.value] = type;
  }
}

void ReadVmOpts(const Value& value, Spec& spec) {
  ReadMap(value, kVmKeys, spec);
}

void ReadImages(const Value& value, Spec& spec) {
  spec.images.clear();
  for (const Value& item :
       value.Items("a list of images, each with its location, as in "
                   "'- location: debian-12'")) {
    spec.images.push_back(ReadImage(item));
  }
  if (spec.images.empty()) {
    throw value.Fault("is an empty list; name an image, or remove the key");
  }
}

void CheckFiles(const Value& value, Spec&) {
  static constexpr Key<BootFile> kKeys[] = {
      kInitrdKeys[0],
      kInitrdKeys[1],
      {"location", kText,
       [](const Value& v, BootFile& file) {
         file.location = v.Line("a file");
       }},
      {"vmType", kText,
       [](const Value& v, BootFile&) { (void)v.Line("a vmType"); }},
  };
  for (const Value& item : value.Items("a list of files")) {
    BootFile file;
    ReadMap(item, kKeys, file);
  }
}

}  // namespace sbxfs
