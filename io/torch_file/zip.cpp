#include "io/torch_file/zip.h"

#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/error.h"

namespace qlora::io {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50, kDirectoryEntry = 0x02014b50,
                   kDirectoryEnd = 0x06054b50, kDirectoryEnd64 = 0x06064b50,
                   kLocator64 = 0x07064b50;
constexpr uint64_t kLocalBytes = 30, kEntryBytes = 46, kEndBytes = 22, kEnd64Bytes = 56,
                   kLocatorBytes = 20;
constexpr uint32_t kIn64Bits = 0xffffffff;  // the number stands in the zip64 extra field
constexpr uint16_t kExtra64 = 1;
constexpr uint16_t kEncrypted = 1;  // a flag

// A piece of the file whose numbers, little-endian, are read only where they lie within it.
class Bytes {
 public:
  Bytes(std::span<const std::byte> bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  uint64_t size() const { return bytes_.size(); }

  template <typename Number>
  Number number(uint64_t offset) const {
    Number value = 0;
    std::memcpy(&value, piece(offset, sizeof(Number)).data(), sizeof(Number));
    return value;
  }
  std::span<const std::byte> piece(uint64_t offset, uint64_t size) const {
    if (offset > bytes_.size() || size > bytes_.size() - offset)
      fail<FormatError>("{}: {} bytes at {} of the archive lie outside the {} that it has", path_,
                        size, offset, bytes_.size());
    return bytes_.subspan(offset, size);
  }
  Bytes part(uint64_t offset, uint64_t size) const { return {piece(offset, size), path_}; }
  std::string text(uint64_t offset, uint64_t size) const {
    return {reinterpret_cast<const char*>(piece(offset, size).data()), size};
  }
  const std::string& path() const { return path_; }

 private:
  std::span<const std::byte> bytes_;
  const std::string& path_;
};

struct Directory {
  uint64_t offset = 0, bytes = 0, entries = 0;
};

Directory find_directory(const Bytes& file) {
  const auto cut_off = [&file] {
    fail<FormatError>("{}: the archive must end with its directory; the file is cut off",
                      file.path());
  };
  if (file.size() < kEndBytes) cut_off();
  uint64_t end = file.size() - kEndBytes;
  if (file.number<uint32_t>(end) != kDirectoryEnd || file.number<uint16_t>(end + 20) != 0)
    cut_off();
  Directory directory{.offset = file.number<uint32_t>(end + 16),
                      .bytes = file.number<uint32_t>(end + 12),
                      .entries = file.number<uint16_t>(end + 10)};
  if (end >= kLocatorBytes && file.number<uint32_t>(end - kLocatorBytes) == kLocator64) {
    end = file.number<uint64_t>(end - kLocatorBytes + 8);
    const Bytes wide = file.part(end, kEnd64Bytes);
    if (wide.number<uint32_t>(0) != kDirectoryEnd64)
      fail<FormatError>("{}: the archive's zip64 directory must end at byte {}", file.path(), end);
    directory = {.offset = wide.number<uint64_t>(48),
                 .bytes = wide.number<uint64_t>(40),
                 .entries = wide.number<uint64_t>(32)};
  }
  if (directory.offset > end || directory.bytes != end - directory.offset ||
      directory.entries > directory.bytes / kEntryBytes)
    fail<FormatError>(
        "{}: the archive's directory must fill the bytes before its end at {}, and is said to have "
        "{} entries in {} bytes from {} on",
        file.path(), end, directory.entries, directory.bytes, directory.offset);
  return directory;
}

// An entry as the directory describes it.
struct Entry {
  std::string name;
  uint64_t bytes = 0, header = 0;
};

// Replaces the numbers that did not fit 32 bits, in the order in which the format has them.
void take_wide_numbers(const Bytes& extra, std::initializer_list<uint64_t*> numbers) {
  for (uint64_t at = 0; at < extra.size();) {
    const auto id = extra.number<uint16_t>(at);
    const Bytes field = extra.part(at + 4, extra.number<uint16_t>(at + 2));
    at += 4 + field.size();
    if (id != kExtra64) continue;
    uint64_t next = 0;
    for (uint64_t* number : numbers) {
      if (*number != kIn64Bits) continue;
      *number = field.number<uint64_t>(next);
      next += sizeof(uint64_t);
    }
    return;
  }
}

// The entry at `at` of the directory; moves `at` behind it.
Entry read_entry(const Bytes& directory, uint64_t& at) {
  const Bytes fixed = directory.part(at, kEntryBytes);
  if (fixed.number<uint32_t>(0) != kDirectoryEntry)
    fail<FormatError>("{}: the archive's directory must have an entry at its byte {}",
                      directory.path(), at);
  const uint64_t name_bytes = fixed.number<uint16_t>(28), extra_bytes = fixed.number<uint16_t>(30);
  Entry entry{.name = directory.text(at + kEntryBytes, name_bytes),
              .bytes = fixed.number<uint32_t>(24),
              .header = fixed.number<uint32_t>(42)};
  uint64_t stored = fixed.number<uint32_t>(20);
  take_wide_numbers(directory.part(at + kEntryBytes + name_bytes, extra_bytes),
                    {&entry.bytes, &stored, &entry.header});
  at += kEntryBytes + name_bytes + extra_bytes + fixed.number<uint16_t>(32);
  if (fixed.number<uint16_t>(10) != 0 || (fixed.number<uint16_t>(8) & kEncrypted) != 0 ||
      stored != entry.bytes)
    fail<FormatError>(
        "{}: {} must be stored as it is, as torch.save does, and is compressed or encrypted; "
        "unpack "
        "the archive and pack it again with zip -0",
        directory.path(), entry.name);
  return entry;
}

// `data` is what lies before the directory.
std::span<const std::byte> bytes_of(const Entry& entry, const Bytes& data) {
  const Bytes header = data.part(entry.header, kLocalBytes);
  const uint64_t name_bytes = header.number<uint16_t>(26),
                 extra_bytes = header.number<uint16_t>(28);
  if (header.number<uint32_t>(0) != kLocalHeader ||
      data.text(entry.header + kLocalBytes, name_bytes) != entry.name)
    fail<FormatError>("{}: {} must begin at byte {}, as the archive's directory says", data.path(),
                      entry.name, entry.header);
  return data.piece(entry.header + kLocalBytes + name_bytes + extra_bytes, entry.bytes);
}

}  // namespace

ZipEntries read_stored_zip(std::span<const std::byte> file, const std::string& path) {
  const Bytes all(file, path);
  const Directory where = find_directory(all);
  const Bytes directory = all.part(where.offset, where.bytes), data = all.part(0, where.offset);
  ZipEntries entries;
  uint64_t at = 0;
  for (uint64_t i = 0; i < where.entries; ++i) {
    const Entry entry = read_entry(directory, at);
    if (!entries.emplace(entry.name, bytes_of(entry, data)).second)
      fail<FormatError>("{}: the archive must hold {} once, and holds it twice", path, entry.name);
  }
  if (at != directory.size())
    fail<FormatError>("{}: {} bytes of the archive's directory belong to no entry", path,
                      directory.size() - at);
  return entries;
}

}  // namespace qlora::io
