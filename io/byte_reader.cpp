#include "io/byte_reader.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/path_error.h"

namespace qlora::io {
namespace {

constexpr size_t kPiece = size_t{1} << 17;
constexpr size_t kMagic = 4;

// Appends up to kPiece bytes of the file.
void append_piece(const std::string& path, std::ifstream& file, std::string& bytes) {
  const size_t before = bytes.size();
  bytes.resize(before + kPiece);
  file.read(bytes.data() + before, kPiece);
  if (file.bad()) fail_on_path(errno, "{} cannot be read", path);
  bytes.resize(before + static_cast<size_t>(file.gcount()));
}

}  // namespace

ByteReader::ByteReader(std::string path) : path_(std::move(path)) {
  file_.open(path_, std::ios::binary);
  if (!file_) fail_on_path(errno, "{} cannot be opened", path_);
  decompressor_ = make_decompressor(peek(kMagic));
  if (decompressor_) packed_ = std::exchange(buffer_, {});
}

std::string_view ByteReader::peek(size_t count) {
  while (buffered().size() < count && fill()) {
  }
  return buffered().substr(0, count);
}

bool ByteReader::line(std::string& line) {
  line.clear();
  for (;;) {
    const std::string_view left = buffered();
    const size_t end = left.find('\n');
    line.append(left.substr(0, end));
    if (end != std::string_view::npos) {
      begin_ += end + 1;
      return true;
    }
    begin_ = buffer_.size();
    if (!fill()) return !line.empty();
  }
}

std::string ByteReader::rest() {
  std::string all;
  do {
    all.append(buffered());
    begin_ = buffer_.size();
  } while (fill());
  return all;
}

bool ByteReader::fill() {
  buffer_.erase(0, std::exchange(begin_, 0));
  if (decompressor_) return unpack_more();
  const size_t before = buffer_.size();
  if (file_.good()) append_piece(path_, file_, buffer_);
  return buffer_.size() > before;
}

void ByteReader::read_packed() {
  packed_.clear();
  packed_begin_ = 0;
  if (file_.good()) append_piece(path_, file_, packed_);
}

bool ByteReader::unpack_more() {
  const size_t before = buffer_.size();
  for (;;) {
    if (packed_begin_ == packed_.size()) read_packed();
    const bool file_ended = packed_.empty();
    if (file_ended && decompressor_->is_complete()) return false;
    buffer_.resize(before + kPiece);
    const Decompressor::Step step = decompressor_->unpack(
        std::string_view(packed_).substr(packed_begin_), std::span(buffer_).subspan(before));
    buffer_.resize(before + step.given);
    packed_begin_ += step.taken;
    packed_offset_ += static_cast<int64_t>(step.taken);
    if (!step.fault.empty())
      fail<FormatError>("{}: the {} archive cannot be unpacked at byte {}: {}", path_,
                        decompressor_->name(), packed_offset_, step.fault);
    if (step.given > 0) return true;
    if (file_ended && !decompressor_->is_complete())
      fail<FormatError>(
          "{}: the {} archive is not whole: the file ends at byte {}, before the archive does; "
          "copy it again",
          path_, decompressor_->name(), packed_offset_);
  }
}

}  // namespace qlora::io
