// The zip archives that torch.save writes: entries stored as they are, never compressed, so that
// each is a piece of the file (PKWARE APPNOTE 6.3.9, sections 4.3 to 4.5, zip64 included).
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

namespace qlora::io {

// Names of entries to their bytes, which lie in `file`.
using ZipEntries = std::map<std::string, std::span<const std::byte>>;

// The entries that the central directory names. `path` names the file in messages. Checksums are
// not compared. FormatError if a record lies outside the file or contradicts another one, if an
// entry is compressed, encrypted or named twice, or if the directory does not end the file (as in
// one that is cut off).
ZipEntries read_stored_zip(std::span<const std::byte> file, const std::string& path);

}  // namespace qlora::io
