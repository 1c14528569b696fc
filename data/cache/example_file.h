// A file of examples, written once from the first to the last and then mapped: what the cache of
// tokenized rows consists of. Memory holds no more of it than what is being looked at.
//
//   magic (16 bytes, with the format's version)
//   per example: tokens int32[n], encoded int32[m], mask uint8[n], zeros up to a multiple of 4
//   behind every kExamplesABlock examples, and behind the last: their records (ExampleRecord)
//   directory: int64 offset of each block of records
//   text: what the file was made from and what became of the rows (JSON)
//   trailer: number of examples, offsets, XXH3-128 of all bytes before the hash, magic
//
// Numbers are those of the machine (x86-64: little endian). Records lie together so that lengths
// can be gone through without reading tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/examples.h"
#include "io/hashing.h"
#include "io/mapped_file.h"
#include "io/output_file.h"

namespace qlora::data {

struct ExampleRecord {
  int64_t offset = 0;  // of its first byte in the file
  int64_t row = -1;
  int32_t tokens = 0, encoded = 0, supervised = 0;  // numbers of them
  uint8_t side = 0;
  uint8_t unused[3] = {};
};

constexpr int64_t kExamplesABlock = 4096;

class ExampleFileWriter {
 public:
  // Creates or empties the file. IoError, as of the other functions.
  explicit ExampleFileWriter(const std::string& path);
  void add(const ExampleView& example);
  // Completes the file, which is then on the disk.
  void finish(const std::string& text);

  int64_t size() const { return static_cast<int64_t>(file_.size()); }  // bytes

 private:
  void write(std::span<const std::byte> bytes);
  void pad_to(size_t alignment);
  void write_records();

  io::OutputFile file_;
  io::Hasher hasher_;
  int64_t examples_ = 0;
  std::vector<ExampleRecord> records_;  // not yet written
  std::vector<int64_t> directory_;
};

class ExampleFile : public ExampleStore {
 public:
  // Maps and checks all of it. `source` is what its examples get as theirs. IoError if it cannot be
  // read; FormatError if it is not a whole file of this version.
  static std::shared_ptr<const ExampleFile> open(const std::string& path, int32_t source);
  // The text of a file, whose other bytes are not looked at. Errors as of open().
  static std::string read_text(const std::string& path);

  int64_t size() const override { return examples_; }
  ExampleView at(int64_t index) const override;
  void drop_pages() const override;
  void drop_pages_of(int64_t index) const override;

  const std::string& text() const { return text_; }
  int64_t bytes() const { return static_cast<int64_t>(file_->bytes().size()); }

 private:
  ExampleFile() = default;
  ExampleRecord record(int64_t index) const;
  void read_ends();
  void check_hash() const;
  void check_records() const;
  std::span<const std::byte> piece(int64_t offset, int64_t size) const;

  std::shared_ptr<const io::MappedFile> file_;
  int32_t source_ = 0;
  int64_t examples_ = 0;
  int64_t data_end_ = 0;                // where the directory begins
  std::span<const int64_t> directory_;  // in the file
  std::string text_;
};

}  // namespace qlora::data
