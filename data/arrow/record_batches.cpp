#include "data/arrow/record_batches.h"

#include <arrow/type.h>

#include <algorithm>

#include "data/arrow/arrow_values.h"
#include "data/readers/message_content.h"
#include "data/readers/reader.h"

namespace qlora::data {
namespace {

// Whether the format reads the column, under our name or the one that the dataset gives it.
bool is_read(const std::string& column, const DatasetOptions& dataset) {
  return std::ranges::any_of(find_format(dataset.format).fields, [&](const std::string& field) {
    const auto mapped = dataset.fields.find(field);
    return column == (mapped == dataset.fields.end() ? field : mapped->second);
  });
}

// The library's sentences may have several lines.
std::string in_one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  std::ranges::replace(text, '\n', ' ');
  return text;
}

}  // namespace

void require_ok(const arrow::Status& status, const std::string& place) {
  if (status.ok()) return;
  const std::string message = in_one_line(status.message());
  if (status.IsOutOfMemory())
    fail<FormatError>(
        "{}: the file is damaged, or holds more at once than there is memory for ({}); write it "
        "with "
        "smaller row groups or record batches",
        place, message);
  fail<FormatError>("{}: the file is damaged or not whole: {}", place, message);
}

std::string RecordBatchRows::place() const {
  return fmt::format("{}, {} {}", path_, group_name(), group_);
}

std::vector<int> RecordBatchRows::row_columns(const arrow::Schema& schema,
                                              const DatasetOptions& dataset) const {
  const Format& format = find_format(dataset.format);
  std::vector<int> columns;
  for (int i = 0; i < schema.num_fields(); ++i) {
    const arrow::Field& field = *schema.field(i);
    if (has_json_counterpart(*field.type())) {
      columns.push_back(i);
    } else if (is_read(field.name(), dataset)) {
      fail<FormatError>(
          "{}: column '{}' has the type {}, which is no text, number, list or object; store it as "
          "a "
          "string",
          path_, field.name(), field.type()->ToString());
    } else if (is_media_field(field.name()) && has_conversations(format)) {
      columns.push_back(i);  // so that a conversation about what is in it can be refused
    }
  }
  return columns;
}

bool RecordBatchRows::next(SourceRow& row) {
  while (batch_.rows == nullptr || in_batch_ == batch_.rows->num_rows()) {
    batch_ = next_batch();
    in_batch_ = 0;
    if (batch_.rows == nullptr) return false;
    // Bytes from outside: offsets within bounds, text in UTF-8.
    require_ok(batch_.rows->ValidateFull(), place());
  }
  row.line = 0;
  row.location = fmt::format("{}, row {}", place(), batch_.first_row + in_batch_);
  row.value = Json::object();
  for (const int column : columns_)
    row.value[batch_.rows->column_name(column)] =
        json_value(*batch_.rows->column(column), in_batch_);
  ++in_batch_;
  return true;
}

}  // namespace qlora::data
