#include "data/row_files/row_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "base/ascii_case.h"
#include "base/error.h"
#include "data/data_file.h"
#include "data/row_files/column_files.h"

namespace qlora::data {
namespace {
namespace fs = std::filesystem;

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
constexpr size_t kHead = 4096;

void check_opens(const std::string& path) {
  if (std::ifstream(path, std::ios::binary)) return;
  fail<ConfigError>("{}: the dataset cannot be opened ({})", path, std::strerror(errno));
}

class TextRows final : public RowFile {
 public:
  explicit TextRows(io::ByteReader bytes) : bytes_(std::move(bytes)) {}

  bool next(SourceRow& row) override {
    std::string text = bytes_.rest();
    if (text.empty()) return false;
    row.value = Json{{"text", std::move(text)}};
    row.line = 1;
    row.location = bytes_.path() + ":1";
    return true;
  }

 private:
  io::ByteReader bytes_;
};

}  // namespace

std::string rows_extension(const std::string& path) {
  fs::path name = fs::path(path).filename();
  std::string extension = ascii_lower_case(name.extension().string());
  if (extension == ".gz" || extension == ".zst")
    extension = ascii_lower_case(name.stem().extension().string());
  return extension;
}

std::unique_ptr<RowFile> open_text_rows(io::ByteReader bytes) {
  return std::make_unique<TextRows>(std::move(bytes));
}

std::unique_ptr<RowFile> open_row_file(const std::string& path, const DatasetOptions& dataset) {
  check_opens(path);
  io::ByteReader bytes(path);
  const std::string extension = rows_extension(path);
  const std::string_view head = bytes.peek(kHead);
  if (const ColumnFile kind = column_file_by_first_bytes(head); kind != ColumnFile::kNone) {
    if (bytes.is_packed())
      fail<FormatError>(
          "{} is an archive of {}, which is read from its end and compressed already; unpack it",
          path, kind == ColumnFile::kParquet ? "a Parquet file" : "an Arrow file");
    return open_column_rows(path, kind, dataset);
  }
  const bool is_text = dataset.format == "text" && extension == ".txt";
  const bool is_table = extension == ".csv" || extension == ".tsv";
  const size_t start = head.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0;
  check_first_bytes(path, head.substr(start),
                    is_text    ? RowText::kPlain
                    : is_table ? RowText::kTable
                               : RowText::kJson);
  bytes.skip(start);
  if (is_text) return open_text_rows(std::move(bytes));
  if (is_table) return open_table_rows(std::move(bytes), extension == ".tsv" ? '\t' : ',', dataset);
  return open_json_rows(std::move(bytes));
}

}  // namespace qlora::data
