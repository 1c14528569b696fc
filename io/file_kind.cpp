#include "io/file_kind.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/ascii_case.h"
#include "base/utf8.h"

namespace qlora::io {
namespace {
using namespace std::string_view_literals;

constexpr size_t kHead = 4096;

struct Kind {
  std::string_view first_bytes;
  const char* sentence;
};

constexpr std::array kKinds = {
    Kind{"version https://git-lfs.github.com/spec/"sv,
         "a Git LFS pointer and not the file itself; run git lfs pull"},
    Kind{"version https://hawser.github.com/spec/"sv,
         "a Git LFS pointer and not the file itself; run git lfs pull"},
    Kind{"\x1f\x8b"sv, "compressed with gzip; unpack it (gunzip)"},
    Kind{"\x28\xb5\x2f\xfd"sv, "compressed with Zstandard; unpack it (unzstd)"},
    Kind{"\xfd"
         "7zXZ\0"sv,
         "compressed with xz; unpack it (unxz)"},
    Kind{"BZh"sv, "compressed with bzip2; unpack it (bunzip2)"},
    Kind{"7z\xbc\xaf\x27\x1c"sv, "a 7z archive; unpack it"},
    Kind{"Rar!\x1a\x07"sv, "a RAR archive; unpack it"},
    Kind{"%PDF-"sv, "a PDF document; save what it says as plain text"},
    Kind{"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"sv,
         "a document of an older Office program; save a table as CSV, a text as plain text"},
    Kind{"SQLite format 3\0"sv, "an SQLite database; write its rows as JSON Lines or CSV"},
    Kind{"\x93NUMPY"sv, "an array of NumPy"},
    Kind{"\x89HDF\r\n\x1a\n"sv, "an HDF5 file, as Keras and older TensorFlow write"},
    Kind{"PAR1"sv, "a Parquet file"},
    Kind{"\xff\xfe\0\0"sv, "text in UTF-32; convert it to UTF-8 (iconv -f UTF-32 -t UTF-8)"},
    Kind{"\0\0\xfe\xff"sv, "text in UTF-32; convert it to UTF-8 (iconv -f UTF-32 -t UTF-8)"},
    Kind{"\xff\xfe"sv, "text in UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"},
    Kind{"\xfe\xff"sv, "text in UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"},
    Kind{"GGUF"sv, "a GGUF file; give it a name that ends in .gguf"},
    Kind{"tjgg"sv, "a model file from before GGUF (GGJT); convert the original again"},
    Kind{"\x80\x02"sv, "a pickle, which PyTorch's older .bin and .pt files are"}};

std::string_view zip_kind(std::string_view bytes) {
  const auto holds = [&](std::string_view name) { return bytes.find(name) != bytes.npos; };
  if (holds("xl/"sv) || holds("opendocument.spreadsheet"sv))
    return "a workbook of Excel or another Office program; save its sheet as CSV";
  if (holds("word/"sv) || holds("opendocument.text"sv))
    return "a Word document or one of another Office program; save it as plain text";
  if (holds("[Content_Types].xml"sv) || holds("docProps/"sv))
    return "a document of an Office program; save a table as CSV, a text as plain text";
  return "a zip archive, which PyTorch's .bin and .pt files are, too";
}

// Pages and XML may begin with blanks, and are written in letters of either case.
std::string_view markup_kind(std::string_view bytes) {
  bytes.remove_prefix(std::min(bytes.find_first_not_of(" \t\r\n"), bytes.size()));
  const std::string head = ascii_lower_case(std::string(bytes.substr(0, 9)));
  if (head == "<!doctype" || head.starts_with("<html"))
    return "a web page; the download answered with a page instead of the file";
  return head.starts_with("<?xml") ? "an XML document" : "";
}

bool is_tar(std::string_view bytes) {
  constexpr size_t kMagicAt = 257;
  return bytes.size() > kMagicAt && bytes.substr(kMagicAt).starts_with("ustar");
}

// Whether zeros are more than some stray ones: one byte in eight, or in what is no UTF-8 either.
bool may_be_wide(std::string_view bytes, size_t num_nul) {
  constexpr size_t kLongestCharacter = 4;  // the last of which may be cut off
  const auto invalid = find_invalid_utf8(bytes);
  return num_nul * 8 >= bytes.size() || (invalid && *invalid + kLongestCharacter < bytes.size());
}

bool is_ascii_text(char c) { return (c >= ' ' && c <= '~') || (c >= '\t' && c <= '\r'); }

}  // namespace

std::string kind_by_first_bytes(std::string_view bytes) {
  for (const Kind& kind : kKinds)
    if (bytes.starts_with(kind.first_bytes)) return kind.sentence;
  if (bytes.starts_with("PK\x03\x04"sv)) return std::string(zip_kind(bytes.substr(0, kHead)));
  if (is_tar(bytes)) return "a tar archive; unpack it (tar xf)";
  return std::string(markup_kind(bytes));
}

std::string kind_by_first_bytes(std::span<const std::byte> bytes) {
  return kind_by_first_bytes(
      std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

std::string wide_text_kind(std::string_view bytes) {
  if (bytes.starts_with("\xff\xfe"sv) || bytes.starts_with("\xfe\xff"sv) ||
      bytes.starts_with("\0\0\xfe\xff"sv))
    return kind_by_first_bytes(bytes);
  size_t num_high_first = 0, num_low_first = 0;  // letters below 128
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
    num_high_first += bytes[i] == '\0' && is_ascii_text(bytes[i + 1]);
    num_low_first += bytes[i + 1] == '\0' && is_ascii_text(bytes[i]);
  }
  const auto num_nul = static_cast<size_t>(std::ranges::count(bytes, '\0'));
  if (num_nul == 0 || std::max(num_high_first, num_low_first) != num_nul) return "";
  if (!may_be_wide(bytes, num_nul)) return "";
  const char* order = num_high_first > 0 ? "BE" : "LE";
  return fmt::format(
      "text in UTF-16 without a byte order mark; convert it to UTF-8 (iconv -f UTF-16{} -t UTF-8)",
      order);
}

std::string text_file_kind(std::string_view bytes) {
  const std::string kind = kind_by_first_bytes(bytes);
  return kind.empty() ? wide_text_kind(bytes) : kind;
}

}  // namespace qlora::io
