// Rows in gzip and Zstandard archives.
#include <fmt/format.h>

#include "data/row_source.h"
#include "tests/data/packed.h"
#include "tests/fuzz/target.h"

namespace qlora::fuzz {
namespace {

void read_archive(std::string_view bytes) {
  const MemoryFile file(bytes);
  data::DatasetOptions dataset;
  dataset.format = "text";
  dataset.path = file.path();
  taken_or_refused([&] {
    data::RowSource source(dataset);
    while (!source.next(64).empty()) {
    }
  });
}

std::vector<std::string> archive_seeds() {
  const std::string row = "{\"text\": \"t\"}\n";
  std::string rows;
  for (int i = 0; i < 300; ++i) rows += fmt::format("{{\"text\": \"{}\"}}\n", i * i);
  std::vector<std::string> seeds;
  for (const auto pack : {test::gzip, test::zstandard})
    for (const std::string& bytes :
         {pack(row), pack(rows), pack(row) + pack(row), pack(""), pack("[" + row + "]")})
      seeds.push_back(bytes);
  return seeds;
}

}  // namespace

std::vector<Target> archive_targets() {
  return {{"archive",
           read_archive,
           archive_seeds,
           {"\x1f\x8b\x08", "\x28\xb5\x2f\xfd", std::string("\x50\x2a\x4d\x18\x01\0\0\0", 8),
            std::string("\0\0\xff\xff", 4), "{\"text\": \"t\"}\n"}}};
}

}  // namespace qlora::fuzz
