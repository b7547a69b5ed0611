#define LIBISOFS_WITHOUT_LIBBURN
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

// libisofs.h leans on its includer for the types it names.
#include <libisofs/libisofs.h>
#include <sys/stat.h>

#include "backend/guest/seed.h"
#include "backend/util/error.h"

namespace sbxfs {
namespace {

struct IsoDeleter {
  void operator()(IsoImage* image) const { iso_image_unref(image); }
  void operator()(IsoWriteOpts* options) const { iso_write_opts_free(options); }
  void operator()(burn_source* source) const {
    source->free_data(source);
    free(source);
  }
};
template <typename T>
using IsoPtr = std::unique_ptr<T, IsoDeleter>;

// libisofs answers less than zero for failure.
void Check(int status) {
  if (status >= 0) return;
  throw Error(status == static_cast<int>(ISO_OUT_OF_MEM) ? ENOMEM : EIO,
              std::string("Cannot make 'seed': ") + iso_error_to_msg(status));
}

void AddFile(IsoImage* image, const std::string& name,
             const std::string& text) {
  // The stream frees its bytes by free().
  auto* bytes = static_cast<unsigned char*>(malloc(text.size() + 1));
  if (bytes == nullptr) throw std::bad_alloc();
  memcpy(bytes, text.data(), text.size());
  IsoStream* stream = nullptr;
  if (const int status = iso_memory_stream_new(bytes, text.size(), &stream);
      status < 0) {
    free(bytes);
    Check(status);
  }
  IsoFile* file = nullptr;
  if (const int status = iso_tree_add_new_file(iso_image_get_root(image),
                                               name.c_str(), stream, &file);
      status < 0) {
    iso_stream_unref(stream);
    Check(status);
  }
  // A seed holds a private key.
  iso_node_set_permissions(reinterpret_cast<IsoNode*>(file), S_IFREG | 0400);
}

}  // namespace

std::string MakeIso(
    const std::string& label,
    const std::vector<std::pair<std::string, std::string>>& files) {
  static const int initialized = iso_init();
  Check(initialized);
  iso_set_msgs_severities(const_cast<char*>("NEVER"),
                          const_cast<char*>("NEVER"), const_cast<char*>(""));
  IsoImage* raw_image = nullptr;
  Check(iso_image_new(label.c_str(), &raw_image));
  const IsoPtr<IsoImage> image(raw_image);
  for (const auto& [name, text] : files) AddFile(image.get(), name, text);

  IsoWriteOpts* raw_options = nullptr;
  Check(iso_write_opts_new(&raw_options, 0));
  const IsoPtr<IsoWriteOpts> options(raw_options);
  Check(iso_write_opts_set_rockridge(raw_options, 1));
  Check(iso_write_opts_set_joliet(raw_options, 1));
  // cloud-init looks for the label in either case, people for what they gave.
  Check(iso_write_opts_set_relaxed_vol_atts(raw_options, 1));
  burn_source* raw_source = nullptr;
  Check(iso_image_create_burn_source(image.get(), raw_options, &raw_source));
  const IsoPtr<burn_source> source(raw_source);

  std::string out;
  unsigned char sector[2048];
  int got;
  while ((got = source->read_xt != nullptr && source->read == nullptr
                    ? source->read_xt(raw_source, sector, sizeof sector)
                    : source->read(raw_source, sector, sizeof sector)) > 0) {
    out.append(reinterpret_cast<char*>(sector), got);
  }
  if (got < 0) throw Error(EIO, "Cannot make 'seed': libisofs stopped early");
  return out;
}

}  // namespace sbxfs
