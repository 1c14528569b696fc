#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "io/byte_reader.h"
#include "tests/data/packed.h"
#include "tests/data/read_rows.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using test::TempDir;
using testing::AllOf;
using testing::HasSubstr;

using Packer = std::string (*)(const std::string&);

struct Archive {
  const char* extension;
  const char* name;
  Packer pack;
};

class Compressed : public testing::TestWithParam<Archive> {
 protected:
  std::vector<SourceRow> rows_of(const std::string& bytes, const std::string& name,
                                 const std::string& format = "text") const {
    const TempDir dir;
    return test::read_rows({dir.write(name + GetParam().extension, bytes), format, {}});
  }
  std::string error_of(const std::string& bytes) const {
    const TempDir dir;
    return test::refusal_of<FormatError>(
        {dir.write(std::string("a.jsonl") + GetParam().extension, bytes), "text", {}});
  }
  std::string pack(const std::string& bytes) const { return GetParam().pack(bytes); }
};

// Bytes that do not pack well, so that an archive has several pieces.
std::string many_lines() {
  std::string lines;
  uint64_t state = 1;
  for (int i = 0; i < 20000; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    lines += fmt::format("{{\"text\": \"{} {:x}\"}}\n", i, state);
  }
  return lines;
}

TEST_P(Compressed, RowsOfEachKindOfTextAreUnpackedOnTheWay) {
  const auto lines = rows_of(pack("{\"text\": \"a\"}\n\n{\"text\": \"b\"}\n"), "a.jsonl");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[1].value["text"], "b");
  EXPECT_EQ(lines[1].line, 3);
  EXPECT_EQ(rows_of(pack("[{\"text\": \"a\"}]"), "a.json").size(), 1u);
  EXPECT_EQ(rows_of(pack("\xef\xbb\xbftext,n\na,1\n"), "a.csv")[0].value["text"], "a");
  EXPECT_EQ(rows_of(pack("text\tn\na\t1\n"), "a.TSV")[0].value["n"], "1");
  EXPECT_EQ(rows_of(pack("plain"), "a.txt")[0].value["text"], "plain");
}

TEST_P(Compressed, AnArchiveOfManyPiecesGivesEveryRow) {
  const std::string lines = many_lines();
  const auto packed = rows_of(pack(lines), "a.jsonl");
  ASSERT_EQ(packed.size(), 20000u);
  for (size_t i = 0; i < packed.size(); ++i)
    ASSERT_TRUE(packed[i].value["text"].get<std::string>().starts_with(std::to_string(i) + " "));
}

TEST_P(Compressed, ArchivesOneAfterTheOtherAreOne) {
  const std::string two = pack("{\"text\": \"a\"}\n") + pack("{\"text\": \"b\"}\n");
  EXPECT_EQ(rows_of(two, "a.jsonl").size(), 2u);
}

TEST_P(Compressed, TheNameDoesNotMatter) {
  const TempDir dir;
  const std::string bytes = "{\"text\": \"a\"}\n";
  EXPECT_EQ(test::read_rows({dir.write("a.jsonl", pack(bytes)), "text", {}}).size(), 1u);
  const std::string plain = dir.write(std::string("b.jsonl") + GetParam().extension, bytes);
  EXPECT_EQ(test::read_rows({plain, "text", {}}).size(), 1u);
}

TEST_P(Compressed, AnEmptyArchiveHasNoRows) { EXPECT_TRUE(rows_of(pack(""), "a.jsonl").empty()); }

TEST_P(Compressed, AnArchiveThatIsCutOffSaysWhereItsFileEnds) {
  const std::string packed = pack(many_lines());
  const size_t half = packed.size() / 2;
  EXPECT_THAT(
      error_of(packed.substr(0, half)),
      AllOf(HasSubstr(std::string("a.jsonl") + GetParam().extension), HasSubstr(GetParam().name),
            HasSubstr("is not whole"), HasSubstr(fmt::format("ends at byte {}", half))));
  EXPECT_THAT(error_of(packed.substr(0, packed.size() - 1)), HasSubstr("is not whole"));
  EXPECT_THAT(error_of(packed.substr(0, 4)), HasSubstr("is not whole"));
}

TEST_P(Compressed, ADamagedArchiveSaysAtWhichByte) {
  std::string packed = pack(many_lines());
  for (size_t i = packed.size() / 2; i < packed.size() / 2 + 64; ++i) packed[i] = '\x55';
  const TempDir dir;
  io::ByteReader reader(dir.write("a", packed));
  try {
    reader.rest();  // rows might be found wrong before the checksum at the end is reached
    FAIL();
  } catch (const FormatError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr(GetParam().name),
                                    HasSubstr("archive cannot be unpacked at byte ")));
  }
  EXPECT_THAT(error_of(pack("{\"text\": \"a\"}\n") + "rest"), HasSubstr("cannot be unpacked"));
}

TEST_P(Compressed, WhatIsWrongWithTheRowsIsToldOfTheirLine) {
  EXPECT_THAT(error_of(pack("{\"text\": \"a\"}\n{\"text\": }\n")), HasSubstr(":2: not valid JSON"));
  EXPECT_THAT(error_of(pack("{\n \"text\": \"a\"\n}\n")), HasSubstr("over several lines"));
}

INSTANTIATE_TEST_SUITE_P(, Compressed,
                         testing::Values(Archive{".gz", "gzip", test::gzip},
                                         Archive{".zst", "Zstandard", test::zstandard}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Gzip, ZerosBehindTheArchiveArePadding) {
  const TempDir dir;
  const std::string padded = test::gzip("{\"text\": \"a\"}\n") + std::string(300000, '\0');
  EXPECT_EQ(test::read_rows({dir.write("a.jsonl.gz", padded), "text", {}}).size(), 1u);
}

TEST(ByteReader, LinesAndBytesMayBeReadInTurn) {
  const TempDir dir;
  io::ByteReader reader(dir.write("a", "ab\ncd\nef"));
  EXPECT_EQ(reader.peek(100), "ab\ncd\nef");
  EXPECT_EQ(reader.next_byte(), 'a');
  std::string line;
  EXPECT_TRUE(reader.line(line));
  EXPECT_EQ(line, "b");
  EXPECT_EQ(reader.peek_byte(), 'c');
  reader.skip(1);
  EXPECT_EQ(reader.rest(), "d\nef");
  EXPECT_EQ(reader.next_byte(), -1);
  EXPECT_FALSE(reader.line(line));
}

}  // namespace
}  // namespace qlora::data
