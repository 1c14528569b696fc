// Rows of a table (CSV, TSV): its first line names the columns, which are the fields of a row.
// Cells are texts; where the format's field is a list or an object (messages, input_ids), the cell
// holds it as JSON. An empty cell is a field that the row does not have.
#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"
#include "data/readers/reader.h"
#include "data/row_files/csv_reader.h"
#include "data/row_files/row_file.h"

namespace qlora::data {
namespace {

constexpr std::array kListsAndObjects = {
    "messages",  "conversations",  "tools",           "chat_template_kwargs",
    "loss_mask", "history",        "input_ids",       "labels",
    "mask",      "attention_mask", "completion_mask", "assistant_masks"};

bool is_blank(const std::string& text) {
  return text.find_first_not_of(" \t\r\n") == std::string::npos;
}

// The names that the dataset's file has for fields that are no texts.
std::vector<std::string> structured_fields(const DatasetOptions& dataset) {
  std::vector<std::string> names;
  for (const std::string& field : find_format(dataset.format).fields) {
    if (std::find(kListsAndObjects.begin(), kListsAndObjects.end(), field) ==
        kListsAndObjects.end())
      continue;
    const auto mapped = dataset.fields.find(field);
    names.push_back(mapped == dataset.fields.end() ? field : mapped->second);
  }
  return names;
}

class TableRows final : public RowFile {
 public:
  TableRows(io::ByteReader bytes, char delimiter, const DatasetOptions& dataset)
      : table_(std::move(bytes), delimiter), structured_(structured_fields(dataset)) {
    if (!table_.next(columns_)) return;
    check_delimiter(delimiter);
    check_columns();
  }

  bool next(SourceRow& row) override {
    if (columns_.empty() || !table_.next(cells_)) return false;
    row.line = table_.line();
    row.location = fmt::format("{}:{}", table_.path(), row.line);
    if (cells_.size() != columns_.size())
      fail<FormatError>(
          "{}: a row must have the {} columns of the table's first line, found {}; a field with "
          "delimiters or line breaks in it must stand in double quotes",
          row.location, columns_.size(), cells_.size());
    row.value = Json::object();
    for (size_t i = 0; i < columns_.size(); ++i)
      if (!columns_[i].empty()) row.value[columns_[i]] = value_of(i, row.location);
    return true;
  }

 private:
  // A table with one column whose name has another tool's delimiter in it.
  void check_delimiter(char delimiter) const {
    if (columns_.size() != 1) return;
    for (const auto& [other, name] : {std::pair{';', "semicolons"}, std::pair{'\t', "tabs"},
                                      std::pair{',', "commas"}, std::pair{'|', "bars"}}) {
      if (other == delimiter || columns_[0].find(other) == std::string::npos) continue;
      fail<FormatError>(
          "{}: the table has one column, called '{}': it seems to be divided by {}; a .csv file is "
          "divided by commas, a .tsv file by tabs",
          table_.path(), replace_invalid_utf8(columns_[0]), name);
    }
  }

  void check_columns() const {
    for (size_t i = 0; i < columns_.size(); ++i) {
      if (find_invalid_utf8(columns_[i]))
        fail<FormatError>("{}:{}: the name of column {} is not UTF-8{}", table_.path(),
                          table_.line(), i + 1, kToUtf8);
      const auto same =
          std::find(columns_.begin(), columns_.begin() + static_cast<ptrdiff_t>(i), columns_[i]);
      if (!columns_[i].empty() && same != columns_.begin() + static_cast<ptrdiff_t>(i))
        fail<FormatError>("{}:{}: columns {} and {} are both called '{}'", table_.path(),
                          table_.line(), same - columns_.begin() + 1, i + 1, columns_[i]);
    }
  }

  Json value_of(size_t column, const std::string& location) {
    std::string& cell = cells_[column];
    const std::string& name = columns_[column];
    const auto place = [&] { return fmt::format("{}: column '{}'", location, name); };
    if (std::find(structured_.begin(), structured_.end(), name) != structured_.end())
      return is_blank(cell) ? Json(nullptr) : parse_json_row(cell, place(), "cell");
    if (const auto invalid = find_invalid_utf8(cell))
      fail<FormatError>("{}: byte {} of the cell is not UTF-8{}", place(), *invalid + 1, kToUtf8);
    return cell.empty() ? Json(nullptr) : Json(std::move(cell));
  }

  static constexpr const char* kToUtf8 =
      "; convert the file (iconv -f WINDOWS-1252 -t UTF-8, if it comes from Excel)";

  CsvReader table_;
  const std::vector<std::string> structured_;
  std::vector<std::string> columns_,
      cells_;  // a column without a name, as of an index, is left out
};

}  // namespace

std::unique_ptr<RowFile> open_table_rows(io::ByteReader bytes, char delimiter,
                                         const DatasetOptions& dataset) {
  return std::make_unique<TableRows>(std::move(bytes), delimiter, dataset);
}

}  // namespace qlora::data
