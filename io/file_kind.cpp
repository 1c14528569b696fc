#include "io/file_kind.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace qlora::io {
namespace {
using namespace std::string_view_literals;

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
    Kind{"PK\x03\x04"sv, "a zip archive, which PyTorch's .bin and .pt files are, too"},
    Kind{"PAR1"sv, "a Parquet file"},
    Kind{"\xff\xfe\0\0"sv, "text in UTF-32; convert it to UTF-8 (iconv -f UTF-32 -t UTF-8)"},
    Kind{"\0\0\xfe\xff"sv, "text in UTF-32; convert it to UTF-8 (iconv -f UTF-32 -t UTF-8)"},
    Kind{"\xff\xfe"sv, "text in UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"},
    Kind{"\xfe\xff"sv, "text in UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"},
    Kind{"<!DOCTYPE"sv, "a web page; the download answered with a page instead of the file"},
    Kind{"<!doctype"sv, "a web page; the download answered with a page instead of the file"},
    Kind{"<html"sv, "a web page; the download answered with a page instead of the file"},
    Kind{"GGUF"sv, "a GGUF file; give it a name that ends in .gguf"},
    Kind{"tjgg"sv, "a model file from before GGUF (GGJT); convert the original again"},
    Kind{"\x80\x02"sv, "a pickle, which PyTorch's older .bin and .pt files are"}};

bool is_ascii_text(char c) { return (c >= ' ' && c <= '~') || (c >= '\t' && c <= '\r'); }

}  // namespace

std::string kind_by_first_bytes(std::string_view bytes) {
  for (const Kind& kind : kKinds)
    if (bytes.starts_with(kind.first_bytes)) return kind.sentence;
  return "";
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
  const char* order = num_high_first > 0 ? "BE" : "LE";
  return fmt::format(
      "text in UTF-16 without a byte order mark; convert it to UTF-8 (iconv -f UTF-16{} -t UTF-8)",
      order);
}

}  // namespace qlora::io
