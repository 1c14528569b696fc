#include "data/cache/example_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "base/error.h"
#include "base/progress.h"

namespace qlora::data {
namespace {

constexpr std::string_view kMagic = "qlora examples 1";  // raise the number with the layout
constexpr size_t kHashDigits = 32;

struct Trailer {
  int64_t examples;
  int64_t directory, text, text_bytes;  // offsets in the file, and the size of the text
  char hash[kHashDigits];               // of everything in front of it
  char magic[16];
};
static_assert(sizeof(Trailer) == 80 && kMagic.size() == sizeof(Trailer::magic));
static_assert(sizeof(ExampleRecord) == 32);

constexpr size_t kBehindHashed = kHashDigits + sizeof(Trailer::magic);

int64_t bytes_of(const ExampleRecord& record) {
  constexpr int64_t kId = sizeof(TokenId);
  return kId * (int64_t{record.tokens} + record.encoded) + record.tokens;
}

int64_t num_blocks(int64_t examples) { return (examples + kExamplesABlock - 1) / kExamplesABlock; }

Trailer trailer_of(std::span<const std::byte> file) {
  Trailer trailer;
  std::memcpy(&trailer, file.data() + file.size() - sizeof(Trailer), sizeof(Trailer));
  return trailer;
}

// Of a file that may be larger than the memory.
std::string hash_and_drop(std::span<const std::byte> bytes, const std::string& name) {
  constexpr size_t kPiece = size_t{16} << 20;
  io::Hasher hasher;
  Progress progress("checking " + name, static_cast<int64_t>(bytes.size() / kPiece + 1), "pieces");
  for (size_t begin = 0; begin < bytes.size(); begin += kPiece) {
    const auto piece = bytes.subspan(begin, std::min(kPiece, bytes.size() - begin));
    hasher.update(piece);
    io::drop_pages(piece);
    progress.advance();
  }
  return hasher.hex();
}

}  // namespace

ExampleFileWriter::ExampleFileWriter(const std::string& path) : file_(path) {
  write(std::as_bytes(std::span(kMagic)));
}

void ExampleFileWriter::write(std::span<const std::byte> bytes) {
  file_.write(bytes);
  hasher_.update(bytes);
}

void ExampleFileWriter::pad_to(size_t alignment) {
  constexpr std::array<std::byte, 8> kZeros{};
  write(std::span(kZeros).first((alignment - file_.size() % alignment) % alignment));
}

void ExampleFileWriter::add(const ExampleView& example) {
  ExampleRecord record;
  record.offset = size();
  record.row = example.row;
  record.tokens = static_cast<int32_t>(example.tokens.size());
  record.encoded = static_cast<int32_t>(example.encoded.size());
  record.supervised = static_cast<int32_t>(example.num_supervised());
  record.side = static_cast<uint8_t>(example.side);
  write(std::as_bytes(example.tokens));
  write(std::as_bytes(example.encoded));
  write(std::as_bytes(example.supervised));
  pad_to(sizeof(TokenId));
  records_.push_back(record);
  ++examples_;
  if (static_cast<int64_t>(records_.size()) == kExamplesABlock) write_records();
}

void ExampleFileWriter::write_records() {
  if (records_.empty()) return;
  pad_to(alignof(ExampleRecord));
  directory_.push_back(size());
  write(std::as_bytes(std::span(records_)));
  records_.clear();
}

void ExampleFileWriter::finish(const std::string& text) {
  write_records();
  pad_to(alignof(int64_t));
  Trailer trailer{};
  trailer.examples = examples_;
  trailer.directory = size();
  write(std::as_bytes(std::span(directory_)));
  trailer.text = size();
  trailer.text_bytes = static_cast<int64_t>(text.size());
  write(std::as_bytes(std::span(text)));
  pad_to(alignof(Trailer));
  const auto bytes = std::as_bytes(std::span(&trailer, 1));
  write(bytes.first(bytes.size() - kBehindHashed));
  file_.write(hasher_.hex());
  file_.write(kMagic);
  file_.finish();
}

std::shared_ptr<const ExampleFile> ExampleFile::open(const std::string& path, int32_t source) {
  std::shared_ptr<ExampleFile> file(new ExampleFile());
  // Its hash is looked at here; whose time is set later, against a purge of old files, is the same.
  file->file_ = io::MappedFile::open(path, io::WhenChanged::kIgnore);
  file->source_ = source;
  file->read_ends();
  file->check_hash();
  file->check_records();
  file->drop_pages();
  return file;
}

std::string ExampleFile::read_text(const std::string& path) {
  ExampleFile file;
  file.file_ = io::MappedFile::open(path, io::WhenChanged::kIgnore);
  file.read_ends();
  return file.text_;
}

std::span<const std::byte> ExampleFile::piece(int64_t offset, int64_t size) const {
  const auto all = file_->bytes();
  if (offset < 0 || size < 0 || offset > bytes() || size > bytes() - offset)
    fail<FormatError>("{} is damaged: it has no {} bytes at {}", file_->path(), size, offset);
  return all.subspan(static_cast<size_t>(offset), static_cast<size_t>(size));
}

void ExampleFile::read_ends() {
  const auto all = file_->bytes();
  const auto holds_magic = [&](size_t offset) {
    return std::memcmp(all.data() + offset, kMagic.data(), kMagic.size()) == 0;
  };
  if (all.size() < kMagic.size() + sizeof(Trailer) || !holds_magic(0))
    fail<FormatError>("{} is no file of examples of this version", file_->path());
  if (!holds_magic(all.size() - kMagic.size()))
    fail<FormatError>("{} ends too early", file_->path());
  const Trailer trailer = trailer_of(all);
  const bool fits = trailer.examples >= 0 && trailer.examples <= bytes() &&
                    trailer.directory % static_cast<int64_t>(alignof(int64_t)) == 0;
  if (!fits)
    fail<FormatError>("{} is damaged: its directory is not where it must be", file_->path());
  const int64_t blocks = num_blocks(trailer.examples);
  const auto directory = piece(trailer.directory, blocks * static_cast<int64_t>(sizeof(int64_t)));
  directory_ = {reinterpret_cast<const int64_t*>(directory.data()), static_cast<size_t>(blocks)};
  examples_ = trailer.examples;
  data_end_ = trailer.directory;
  const auto text = piece(trailer.text, trailer.text_bytes);
  text_.assign(reinterpret_cast<const char*>(text.data()), text.size());
}

void ExampleFile::check_hash() const {
  const auto all = file_->bytes();
  const Trailer trailer = trailer_of(all);
  if (hash_and_drop(all.first(all.size() - kBehindHashed), "tokenized rows") !=
      std::string_view(trailer.hash, kHashDigits))
    fail<FormatError>("{} is damaged: its bytes do not have the hash that it names", file_->path());
}

void ExampleFile::check_records() const {
  const auto size = static_cast<int64_t>(sizeof(ExampleRecord));
  for (size_t block = 0; block < directory_.size(); ++block) {
    const int64_t count =
        std::min(kExamplesABlock, examples_ - static_cast<int64_t>(block) * kExamplesABlock);
    if (directory_[block] % static_cast<int64_t>(alignof(ExampleRecord)) != 0)
      fail<FormatError>("{} is damaged: records at {}", file_->path(), directory_[block]);
    piece(directory_[block], count * size);
  }
  for (int64_t i = 0; i < examples_; ++i) {
    const ExampleRecord example = record(i);
    const bool fits = example.tokens >= 0 && example.encoded >= 0 && example.offset >= 0 &&
                      example.offset % static_cast<int64_t>(sizeof(TokenId)) == 0 &&
                      example.offset <= data_end_ &&
                      bytes_of(example) <= data_end_ - example.offset &&
                      example.side <= static_cast<uint8_t>(Side::kRejected);
    if (!fits) fail<FormatError>("{} is damaged: the record of example {}", file_->path(), i);
  }
}

ExampleRecord ExampleFile::record(int64_t index) const {
  const auto block = static_cast<size_t>(index / kExamplesABlock);
  const auto* records =
      reinterpret_cast<const ExampleRecord*>(file_->bytes().data() + directory_[block]);
  return records[index % kExamplesABlock];
}

ExampleView ExampleFile::at(int64_t index) const {
  const ExampleRecord found = record(index);
  const std::byte* first = file_->bytes().data() + found.offset;
  const auto* ids = reinterpret_cast<const TokenId*>(first);
  const auto tokens = static_cast<size_t>(found.tokens),
             encoded = static_cast<size_t>(found.encoded);
  ExampleView example;
  example.tokens = {ids, tokens};
  example.encoded = {ids + tokens, encoded};
  example.supervised = {reinterpret_cast<const uint8_t*>(ids + tokens + encoded), tokens};
  example.row = found.row;
  example.source = source_;
  example.side = static_cast<Side>(found.side);
  example.counted = found.supervised;
  return example;
}

void ExampleFile::drop_pages() const { io::drop_pages(file_->bytes()); }

void ExampleFile::drop_pages_of(int64_t index) const {
  const ExampleRecord found = record(index);
  io::drop_touched_pages(file_->bytes().subspan(static_cast<size_t>(found.offset),
                                                static_cast<size_t>(bytes_of(found))));
}

}  // namespace qlora::data
