#include "backend/image/unpack.h"

#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <boost/iostreams/concepts.hpp>
#include <boost/iostreams/filter/bzip2.hpp>
#include <boost/iostreams/filter/gzip.hpp>
#include <boost/iostreams/filter/lzma.hpp>
#include <boost/iostreams/filtering_streambuf.hpp>
#include <cerrno>
#include <exception>
#include <new>
#include <utility>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

namespace io = boost::iostreams;
using std::string_view_literals::operator""sv;

constexpr size_t kPiece = 256 * 1024;
// What tells all of them apart: bzip2's three letters alone might be code.
constexpr size_t kHead = 10;
constexpr std::string_view kEmptyBzip2("\x17\x72\x45\x38\x50\x90");

}  // namespace

// Something that unpacks. Add and Finish are false for damage.
class Unpacker::Stage {
 public:
  Stage() = default;
  virtual ~Stage() = default;
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;
  [[nodiscard]] virtual bool Add(std::string_view bytes) = 0;
  [[nodiscard]] virtual bool Finish() = 0;
};

namespace {

// What the sink throws is kept: Boost would make another exception of it.
class Output : public io::sink {
 public:
  Output(const Unpacker::Sink& sink, std::exception_ptr& thrown)
      : sink_(&sink), thrown_(&thrown) {}
  std::streamsize write(const char* bytes, std::streamsize size) {
    // Boost empties its buffers also after that.
    if (*thrown_) return size;
    try {
      (*sink_)({bytes, static_cast<size_t>(size)});
    } catch (...) {
      *thrown_ = std::current_exception();
      throw;
    }
    return size;
  }

 private:
  const Unpacker::Sink* sink_;
  std::exception_ptr* thrown_;
};

class BoostStage : public Unpacker::Stage {
 public:
  template <typename Filter>
  BoostStage(const Filter& filter, const Unpacker::Sink& sink) {
    buffer_.push(filter, kPiece);
    buffer_.push(Output(sink, thrown_), kPiece);
  }
  // What is buffered goes nowhere: nobody wants the rest of a damaged file.
  ~BoostStage() override {
    try {
      buffer_.set_auto_close(false);
      buffer_.reset();
    } catch (...) {  // NOLINT(bugprone-empty-catch)
    }
  }

  bool Add(std::string_view bytes) override {
    return Try([&] {
      const auto size = static_cast<std::streamsize>(bytes.size());
      return buffer_.sputn(bytes.data(), size) == size;
    });
  }
  bool Finish() override {
    return Try([&] {
      io::close(buffer_);
      return true;
    });
  }

 private:
  template <typename Work>
  bool Try(const Work& work) {
    bool good = false;
    try {
      good = work();
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception&) {
      good = false;
    }
    if (thrown_) std::rethrow_exception(thrown_);
    return good;
  }

  std::exception_ptr thrown_;
  io::filtering_streambuf<io::output> buffer_;
};

// Boost's own takes a zstd file that is cut short, or fails its checksum, for a
// whole one.
class ZstdStage : public Unpacker::Stage {
 public:
  explicit ZstdStage(const Unpacker::Sink& sink)
      : sink_(sink), stream_(ZSTD_createDStream()), piece_(kPiece, '\0') {
    if (!stream_) throw std::bad_alloc();
  }
  bool Add(std::string_view bytes) override {
    ZSTD_inBuffer from{bytes.data(), bytes.size(), 0};
    for (;;) {
      ZSTD_outBuffer to{piece_.data(), piece_.size(), 0};
      const size_t before = from.pos;
      const size_t left = ZSTD_decompressStream(stream_.get(), &to, &from);
      if (ZSTD_isError(left) != 0) return false;
      // Asked for more at the end of a frame, it speaks of the next one.
      if (from.pos != before || to.pos != 0) left_ = left;
      if (to.pos != 0) sink_({piece_.data(), to.pos});
      if (from.pos == from.size && to.pos < to.size) return true;
    }
  }
  bool Finish() override { return left_ == 0; }

 private:
  struct Deleter {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };
  const Unpacker::Sink& sink_;
  const std::unique_ptr<ZSTD_DStream, Deleter> stream_;
  std::string piece_;
  size_t left_ = 1;  // 0 at the end of a frame
};

}  // namespace

Unpacker::Unpacker(std::string name, Sink sink)
    : name_(std::move(name)), sink_(std::move(sink)) {}

Unpacker::~Unpacker() = default;

void Unpacker::Begin() {
  begun_ = true;
  if (head_.starts_with("\x1f\x8b\x08")) {
    stage_ = std::make_unique<BoostStage>(
        io::gzip_decompressor(io::gzip::default_window_bits, kPiece), sink_);
  } else if (head_.starts_with("\xfd"
                               "7zXZ\0"sv)) {
    stage_ = std::make_unique<BoostStage>(io::lzma_decompressor(kPiece), sink_);
  } else if (head_.starts_with("\x28\xb5\x2f\xfd")) {
    stage_ = std::make_unique<ZstdStage>(sink_);
  } else if (head_.starts_with("BZh") &&
             (head_.substr(4) == "1AY&SY" || head_.substr(4) == kEmptyBzip2)) {
    stage_ = std::make_unique<BoostStage>(io::bzip2_decompressor(false, kPiece),
                                          sink_);
  }
  Give(std::exchange(head_, ""));
}

void Unpacker::Give(std::string_view bytes) {
  if (stage_ == nullptr) {
    sink_(bytes);
  } else if (!stage_->Add(bytes)) {
    RefuseDamaged();
  }
}

void Unpacker::RefuseDamaged() const {
  throw Error(EINVAL,
              fmt::format("Cannot use '{}': it is compressed, and cut short or "
                          "damaged; fetch or copy it again",
                          name_));
}

void Unpacker::Add(std::string_view bytes) {
  if (!begun_) {
    const size_t missing = std::min(bytes.size(), kHead - head_.size());
    head_ += bytes.substr(0, missing);
    bytes.remove_prefix(missing);
    if (head_.size() < kHead) return;
    Begin();
  }
  if (!bytes.empty()) Give(bytes);
}

void Unpacker::Finish() {
  if (!begun_) Begin();
  if (stage_ != nullptr && !stage_->Finish()) {
    RefuseDamaged();
  }
}

}  // namespace sbxfs
