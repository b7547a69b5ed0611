// What brings images into the pool.
#include "backend/images_incoming.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>

#include "backend/image/qcow2.h"
#include "backend/util/log.h"
#include "backend/util/process_mark.h"

namespace sbxfs {
namespace {

using namespace std::chrono_literals;

// Enough to tell all formats by.
constexpr size_t kFormatHead = 4096;

}  // namespace

std::string ImageVolume(std::string_view name) {
  return fmt::format("{}{}", kImageVolume, name);
}
std::string MarkVolume(std::string_view name) {
  return fmt::format("{}{}", kMarkVolume, name);
}
std::string ForeignVolume(std::string_view name) {
  return fmt::format("{}{}", kForeignVolume, name);
}

ReadAt ReaderOf(Storage& storage, const std::string& volume) {
  struct Window {
    uint64_t offset = 0;
    std::string bytes;
  };
  auto window = std::make_shared<Window>();
  return [&storage, volume, window](uint64_t offset, size_t size) {
    constexpr size_t kPiece = 256 * 1024;
    Window& w = *window;
    if (offset < w.offset || offset + size > w.offset + w.bytes.size()) {
      w.bytes = storage.Read(volume, offset, std::max(size, kPiece));
      w.offset = offset;
    }
    const uint64_t skip = offset - w.offset;
    if (skip >= w.bytes.size()) return std::string();
    return w.bytes.substr(skip, size);
  };
}

Images::Incoming::Incoming(Images& images, std::string name)
    : images_(images),
      storage_(images.core_.storage),
      name_(std::move(name)),
      what_(fmt::format("Cannot write image '{}'", name_)),
      unpacker_(name_, [this](std::string_view bytes) { Take(bytes); }) {
  images_.TakeName(name_);
  try {
    room_ = storage_.Info().available;
    // Of one that was given up.
    storage_.Delete(ImageVolume(name_));
    storage_.Delete(ForeignVolume(name_));
  } catch (...) {
    images_.Discard(name_);
    throw;
  }
}

Images::Incoming::~Incoming() {
  if (finished_) return;
  upload_.reset();
  images_.Discard(name_);
}

void Images::Incoming::Write(uint64_t offset, std::string_view bytes) {
  if (offset < written_) {
    throw Error(ESPIPE,
                fmt::format("Cannot write image '{}': images are written "
                            "from front to back; copy a finished file",
                            name_));
  }
  Fill(offset);
  unpacker_.Add(bytes);
  written_ += bytes.size();
}

void Images::Incoming::Fill(uint64_t offset) {
  const std::string zeros(
      std::min<uint64_t>(offset - std::min(offset, written_), 1 << 20), '\0');
  while (written_ < offset) {
    const auto piece = std::min<uint64_t>(offset - written_, zeros.size());
    unpacker_.Add(std::string_view(zeros).substr(0, piece));
    written_ += piece;
  }
}

void Images::Incoming::Take(std::string_view bytes) {
  unpacked_ += bytes.size();
  if (full_) throw *full_;
  // A few bytes may unpack to any number.
  if (unpacker_.Packed() && unpacked_ > room_) ThrowFull();
  if (upload_ != nullptr) {
    Send(bytes);
    return;
  }
  head_ += bytes;
  if (head_.size() >= kFormatHead) Begin();
}

void Images::Incoming::Begin() {
  format_ = FormatToConvert(std::string_view(head_).substr(0, kFormatHead));
  // Of others the zeros take no room.
  if (Qcow2::Is(head_) && !unpacker_.Packed()) {
    storage_.CheckRoom(what_, expected_);
  }
  const std::string volume =
      format_.empty() ? ImageVolume(name_) : ForeignVolume(name_);
  storage_.Write(volume, "");
  upload_ = storage_.Upload(volume);
  Send(head_);
  head_.clear();
}

void Images::Incoming::Send(std::string_view bytes) {
  try {
    upload_->Send(bytes);
  } catch (const Error& error) {
    if (error.Errno() != ENOSPC) throw;
    ThrowFull();
  }
}

void Images::Incoming::ThrowFull() {
  upload_.reset();
  uint64_t taken = 0;
  for (const auto& volume : {ImageVolume(name_), ForeignVolume(name_)}) {
    if (storage_.Has(volume)) taken += storage_.Get(volume).allocation;
  }
  full_ = storage_.Full(what_, 0, taken);
  throw *full_;
}

void Images::Incoming::Finish() {
  if (finished_) return;
  if (full_) throw *full_;
  unpacker_.Finish();
  if (upload_ == nullptr) Begin();
  upload_->Finish();
  upload_.reset();
  // libvirt loses the error of a stream's last write.
  const auto volume =
      format_.empty() ? ImageVolume(name_) : ForeignVolume(name_);
  if (storage_.Get(volume).size < unpacked_) ThrowFull();
  if (!format_.empty()) Convert();
  images_.Show(name_, format_.empty() ? unpacked_
                                      : storage_.Get(ImageVolume(name_)).size);
  finished_ = true;
}

// By libvirt, that is, by qemu-img: so nothing in it may name another file.
void Images::Incoming::Convert() {
  const std::string volume = ForeignVolume(name_);
  CheckStandsAlone(name_, unpacked_, ReaderOf(storage_, volume));
  // libvirt looks for a volume's format when it looks at the pool, which it
  // does not do while something else there is under way.
  std::string seen;
  for (int round = 0; round < 50 && seen != format_; ++round) {
    if (round != 0) std::this_thread::sleep_for(200ms);
    storage_.Announce();
    seen = storage_.Get(volume).format;
  }
  if (seen != format_) {
    throw Error(EINVAL,
                fmt::format("Cannot use '{}': to libvirt it is no {} image, "
                            "but {}; convert it by qemu-img convert -O qcow2 "
                            "IN OUT",
                            name_, format_, seen));
  }
  try {
    storage_.CreateFrom(ImageVolume(name_), "qcow2", volume);
  } catch (const Error& error) {
    if (error.Errno() == ENOSPC) throw error.As(what_);
    if (error.Errno() != EIO) throw;
    throw Error(EINVAL, fmt::format("Cannot use '{}': it cannot be converted "
                                    "to qcow2 ({})",
                                    name_, error.Sentence()));
  }
  storage_.Delete(volume);
}

void Images::TakeName(const std::string& name) {
  Storage& storage = core_.storage;
  const bool there = storage.Has(ImageVolume(name));
  if (!storage.Has(MarkVolume(name))) {
    if (there) {
      throw Error(EEXIST, fmt::format("Cannot create image '{}': there is one "
                                      "of that name; rm it first",
                                      name));
    }
    try {
      storage.WriteNew(MarkVolume(name), ThisProcessMark());
      return;
    } catch (const Error& error) {
      if (error.Errno() != EEXIST) throw;
    }
  }
  if (!IsMarkOfTheDead(storage.Read(MarkVolume(name), 0, 0))) {
    throw Error(EBUSY, fmt::format("Cannot create image '{}': it is being "
                                   "written just now; wait for its end, or "
                                   "choose another name",
                                   name));
  }
  storage.Write(MarkVolume(name), ThisProcessMark());
}

void Images::Discard(const std::string& name) {
  try {
    core_.storage.Delete(ForeignVolume(name));
    core_.storage.Delete(ImageVolume(name));
    core_.storage.Delete(MarkVolume(name));
  } catch (const Error& error) {
    // The sweep takes it once libvirt answers again and we have ended.
    spdlog::error("{}", error.Sentence());
  }
}

}  // namespace sbxfs
