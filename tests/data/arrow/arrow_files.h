// Parquet and Arrow files, written by Arrow's own library.
#pragma once

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <arrow/ipc/writer.h>
#include <parquet/arrow/writer.h>
#include <parquet/properties.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "tests/support/temp_dir.h"

namespace qlora::test {

// Error unless the status is ok.
inline void must(const arrow::Status& status) { check(status.ok(), "{}", status.ToString()); }

using Columns = std::vector<std::pair<std::string, std::shared_ptr<arrow::Array>>>;

template <typename Builder, typename Value>
std::shared_ptr<arrow::Array> array_of(const std::vector<std::optional<Value>>& values) {
  Builder builder;
  for (const auto& value : values) must(value ? builder.Append(*value) : builder.AppendNull());
  return builder.Finish().ValueOrDie();
}

inline std::shared_ptr<arrow::Array> strings(
    const std::vector<std::optional<std::string>>& values) {
  return array_of<arrow::StringBuilder, std::string>(values);
}

// An array of lists, the i-th of which has the next lengths[i] of the values.
inline std::shared_ptr<arrow::Array> lists(const std::vector<int32_t>& lengths,
                                           const std::shared_ptr<arrow::Array>& values) {
  std::vector<std::optional<int32_t>> offsets = {0};
  for (const int32_t length : lengths) offsets.emplace_back(*offsets.back() + length);
  return arrow::ListArray::FromArrays(*array_of<arrow::Int32Builder, int32_t>(offsets), *values)
      .ValueOrDie();
}

inline std::shared_ptr<arrow::Array> structs(const Columns& members) {
  std::vector<std::shared_ptr<arrow::Array>> arrays;
  std::vector<std::string> names;
  for (const auto& [name, array] : members) {
    names.push_back(name);
    arrays.push_back(array);
  }
  return arrow::StructArray::Make(arrays, names).ValueOrDie();
}

inline std::shared_ptr<arrow::Table> table_of(const Columns& columns) {
  std::vector<std::shared_ptr<arrow::Field>> fields;
  std::vector<std::shared_ptr<arrow::Array>> arrays;
  for (const auto& [name, array] : columns) {
    fields.push_back(arrow::field(name, array->type()));
    arrays.push_back(array);
  }
  return arrow::Table::Make(arrow::schema(fields), arrays);
}

// A question and its answer in each of `count` rows.
inline Columns conversations(int count) {
  std::vector<std::optional<std::string>> roles, contents, names;
  for (int i = 0; i < count; ++i) {
    roles.insert(roles.end(), {"user", "assistant"});
    contents.insert(contents.end(), {"q" + std::to_string(i), "a" + std::to_string(i)});
    names.insert(names.end(), {"Ines", std::nullopt});
  }
  return {{"messages", lists(std::vector<int32_t>(static_cast<size_t>(count), 2),
                             structs({{"role", strings(roles)},
                                      {"content", strings(contents)},
                                      {"name", strings(names)}}))}};
}

// Return the path of the file.
inline std::string write_parquet(const TempDir& dir, const std::string& name,
                                 const Columns& columns, int64_t rows_a_group = 1024,
                                 const std::shared_ptr<parquet::WriterProperties>& properties =
                                     parquet::default_writer_properties()) {
  const auto file = arrow::io::FileOutputStream::Open(dir / name).ValueOrDie();
  must(parquet::arrow::WriteTable(
      *table_of(columns), arrow::default_memory_pool(), file, rows_a_group, properties,
      parquet::ArrowWriterProperties::Builder().store_schema()->build()));
  must(file->Close());
  return dir / name;
}

inline std::string write_arrow(const TempDir& dir, const std::string& name, const Columns& columns,
                               bool is_stream, int64_t rows_a_batch = 1024) {
  const auto table = table_of(columns);
  const auto file = arrow::io::FileOutputStream::Open(dir / name).ValueOrDie();
  const auto writer = (is_stream ? arrow::ipc::MakeStreamWriter(file, table->schema())
                                 : arrow::ipc::MakeFileWriter(file, table->schema()))
                          .ValueOrDie();
  must(writer->WriteTable(*table, rows_a_batch));
  must(writer->Close());
  must(file->Close());
  return dir / name;
}

}  // namespace qlora::test
