// A program without Arrow's library (QLORA_PARQUET=OFF), tested in every build: this test program
// brings data/row_files/column_files.cpp itself, compiled without the macro and without Arrow's
// headers, in place of the library's.
#include "data/row_files/column_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/data/read_rows.h"
#include "tests/support/temp_dir.h"

#ifdef QLORA_PARQUET
#error "what is tested here is a program without Arrow's library"
#endif

namespace qlora::data {
namespace {

using test::TempDir;
using testing::AllOf;
using testing::HasSubstr;

TEST(WithoutArrow, ParquetAndArrowFilesAreRefusedWithWhatToDo) {
  const TempDir dir;
  EXPECT_THAT(test::refusal_of<ConfigError>({dir.write("a.parquet", "PAR1\x15\x04"), "text", {}}),
              AllOf(HasSubstr("a.parquet is a Parquet file"), HasSubstr("QLORA_PARQUET=OFF"),
                    HasSubstr("-DQLORA_PARQUET=ON"), HasSubstr("JSON Lines")));
  const std::string stream("\xff\xff\xff\xff\0\0", 6);
  for (const std::string& bytes : {std::string("ARROW1"), stream})
    EXPECT_THAT(test::refusal_of<ConfigError>({dir.write("a.arrow", bytes), "text", {}}),
                AllOf(HasSubstr("a.arrow is an Arrow file"), HasSubstr("-DQLORA_PARQUET=ON")));
}

TEST(WithoutArrow, FirstBytesAndNotNamesTellSuchFiles) {
  const TempDir dir;
  EXPECT_THAT(test::refusal_of<ConfigError>({dir.write("a.jsonl", "PARE\x15\x04"), "text", {}}),
              HasSubstr("a.jsonl is a Parquet file"));
  EXPECT_EQ(test::read_rows({dir.write("b.parquet", "{\"text\": \"a\"}\n"), "text", {}}).size(),
            1u);
}

}  // namespace
}  // namespace qlora::data
