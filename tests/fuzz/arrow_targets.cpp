// Parquet and Arrow files, written by Arrow's own library.
#include <arrow/api.h>
#include <parquet/properties.h>

#include "data/row_source.h"
#include "tests/data/arrow/arrow_files.h"
#include "tests/fuzz/target.h"

namespace qlora::fuzz {
namespace {

using test::array_of;
using test::Columns;
using test::lists;
using test::strings;
using test::structs;
using test::TempDir;

// Null columns of any number of rows take no room in a file.
constexpr int kMostReads = 64;

// The first byte chooses the format, which decides whether a column may have a type that is no part
// of a row; the rest is the file.
void read_columns(std::string_view bytes) {
  if (bytes.empty()) return;
  const MemoryFile file(bytes.substr(1));
  data::DatasetOptions dataset;
  dataset.format = static_cast<unsigned char>(bytes[0]) % 2 == 0 ? "chat" : "text";
  dataset.path = file.path();
  taken_or_refused([&] {
    data::RowSource source(dataset);
    for (int i = 0; i < kMostReads && !source.next(64).empty(); ++i) {
    }
  });
}

template <typename Builder>
std::shared_ptr<arrow::Array> finished(Builder& builder) {
  return builder.Finish().ValueOrDie();
}

// Types of every kind, with and without a counterpart in JSON.
Columns columns_of_each_type() {
  arrow::TimestampBuilder times(arrow::timestamp(arrow::TimeUnit::MILLI),
                                arrow::default_memory_pool());
  test::must(times.Append(0));
  test::must(times.AppendNull());
  arrow::StringDictionaryBuilder words;
  for (const char* word : {"x", "y"}) test::must(words.Append(word));
  return {{"text", strings({"a", "\u00FC"})},
          {"large", array_of<arrow::LargeStringBuilder, std::string>({"b", std::nullopt})},
          {"int8", array_of<arrow::Int8Builder, int8_t>({int8_t{-3}, std::nullopt})},
          {"uint64", array_of<arrow::UInt64Builder, uint64_t>({~uint64_t{0}, 0})},
          {"double", array_of<arrow::DoubleBuilder, double>({0.5, 2.5})},
          {"bool", array_of<arrow::BooleanBuilder, bool>({true, false})},
          {"ids", lists({2, 0}, array_of<arrow::Int32Builder, int32_t>({7, 8}))},
          {"deep", structs({{"n", array_of<arrow::Int32Builder, int32_t>({std::nullopt, 4})}})},
          {"image", array_of<arrow::BinaryBuilder, std::string>({"\x01", "\xff"})},
          {"time", finished(times)},
          {"word", finished(words)}};
}

std::vector<std::string> column_seeds() {
  const TempDir dir;
  const Columns messages = test::conversations(3), each = columns_of_each_type();
  const auto parquet_of = [&](const Columns& columns, arrow::Compression::type compression,
                              bool dictionary) {
    parquet::WriterProperties::Builder properties;
    properties.compression(compression);
    if (!dictionary) properties.disable_dictionary();
    return test::write_parquet(dir, "p", columns, /*rows_a_group=*/2, properties.build());
  };
  std::vector<std::string> seeds;
  const auto add = [&](char format, const std::string& path) {
    seeds.push_back(std::string(1, format) + test::read_file(path));
  };
  add(0, parquet_of(messages, arrow::Compression::UNCOMPRESSED, true));
  add(0, parquet_of(messages, arrow::Compression::SNAPPY, false));
  add(1, parquet_of(each, arrow::Compression::UNCOMPRESSED, false));
  add(1, parquet_of(each, arrow::Compression::ZSTD, true));
  for (const bool is_stream : {true, false}) {
    add(0, test::write_arrow(dir, "a", messages, is_stream, /*rows_a_batch=*/2));
    add(1, test::write_arrow(dir, "a", each, is_stream));
  }
  return seeds;
}

}  // namespace

std::vector<Target> arrow_targets() {
  return {{"columns",
           read_columns,
           column_seeds,
           {"PAR1", "PARE", "ARROW1", "\xff\xff\xff\xff", "messages", "role", "content", "text",
            "ARROW:schema", std::string(4, '\0'), "\xff\xff\xff\x7f"}}};
}

}  // namespace qlora::fuzz
