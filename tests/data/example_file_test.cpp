#include "data/cache/example_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "base/seed.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using test::read_file;
using test::TempDir;
using testing::HasSubstr;

constexpr size_t kTail = 48, kTrailer = 80;  // hash and magic; and with the numbers before them

void write(const std::string& path, const std::vector<Example>& examples,
           const std::string& text = "made for a test") {
  ExampleFileWriter file(path);
  for (const Example& example : examples) file.add(example);
  file.finish(text);
}

void expect_same(const ExampleView& found, const Example& example) {
  const Example copy = found.copy();
  EXPECT_EQ(copy.tokens, example.tokens);
  EXPECT_EQ(copy.supervised, example.supervised);
  EXPECT_EQ(copy.encoded, example.encoded);
  EXPECT_EQ(copy.row, example.row);
  EXPECT_EQ(copy.side, example.side);
  EXPECT_EQ(found.length(), example.length());
  EXPECT_EQ(found.num_supervised(), example.num_supervised());
}

// An answer, a pair, a source with its answer, and one token.
std::vector<Example> of_every_kind() {
  return {{{1, 2, 3, 4, 5}, {0, 0, 1, 1, 0}, 0},
          {{1, 9}, {0, 1}, 1, 0, {}, Side::kChosen},
          {{1, 8, 7}, {0, 1, 1}, 1, 0, {}, Side::kRejected},
          {{0, 4, 5}, {0, 1, 1}, int64_t{1} << 40, 0, {100000, 7, 1}},
          {{3}, {0}, 5}};
}

std::string error_of(const std::string& path) {
  try {
    ExampleFile::open(path, 0);
  } catch (const FormatError& error) {
    return error.what();
  }
  return "no error";
}

TEST(ExampleFile, GivesBackExamplesOfEveryKind) {
  const TempDir dir;
  const std::vector<Example> examples = of_every_kind();
  write(dir / "a", examples);
  const auto file = ExampleFile::open(dir / "a", 7);
  EXPECT_EQ(file->text(), "made for a test");
  ASSERT_EQ(file->size(), static_cast<int64_t>(examples.size()));
  for (size_t i = 0; i < examples.size(); ++i) {
    expect_same(file->at(static_cast<int64_t>(i)), examples[i]);
    EXPECT_EQ(file->at(static_cast<int64_t>(i)).source, 7);
  }
}

TEST(ExampleFile, GivesBackMoreExamplesThanABlockHas) {
  const TempDir dir;
  std::vector<Example> examples(2 * kExamplesABlock + 3);
  for (size_t i = 0; i < examples.size(); ++i) {
    Example& example = examples[i];
    example.tokens.assign(1 + random_key(1, i) % 9, static_cast<TokenId>(i));
    example.supervised.assign(example.tokens.size(), static_cast<uint8_t>(i % 2));
    example.row = static_cast<int64_t>(i / 2);
  }
  write(dir / "a", examples);
  const auto file = ExampleFile::open(dir / "a", 0);
  ASSERT_EQ(file->size(), static_cast<int64_t>(examples.size()));
  for (size_t i = 0; i < examples.size(); ++i) {
    expect_same(file->at(static_cast<int64_t>(i)), examples[i]);
    if (i % 1000 == 0) file->drop_pages_of(static_cast<int64_t>(i));
  }
  file->drop_pages();
  expect_same(file->at(4711), examples[4711]);
}

TEST(ExampleFile, MayHoldNoExample) {
  const TempDir dir;
  write(dir / "a", {}, "");
  EXPECT_EQ(ExampleFile::open(dir / "a", 0)->size(), 0);
}

TEST(ExampleFile, AnyByteThatIsAnotherIsFound) {
  const TempDir dir;
  write(dir / "a", of_every_kind());
  const std::string whole = read_file(dir / "a");
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    EXPECT_NE(error_of(dir.write("b", damaged)), "no error") << i;
  }
}

TEST(ExampleFile, AFileThatIsCutIsFound) {
  const TempDir dir;
  write(dir / "a", of_every_kind());
  const std::string whole = read_file(dir / "a");
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_NE(error_of(dir.write("b", whole.substr(0, size))), "no error") << size;
  EXPECT_NE(error_of(dir.write("b", whole + "x")), "no error");
}

TEST(ExampleFile, AnotherVersionIsNoFileOfThisOne) {
  const TempDir dir;
  write(dir / "a", of_every_kind());
  std::string other = read_file(dir / "a");
  ++other[15];
  EXPECT_THAT(error_of(dir.write("b", other)), HasSubstr("no file of examples of this version"));
}

// The bytes with the hash that they ought to have.
std::string hashed(std::string bytes) {
  const std::string hash = io::hash_text(std::string_view(bytes).substr(0, bytes.size() - kTail));
  return bytes.replace(bytes.size() - kTail, hash.size(), hash);
}

TEST(ExampleFile, NumbersThatPointOutOfTheFileAreRefusedWhateverTheHash) {
  const TempDir dir;
  write(dir / "a", of_every_kind());
  const std::string whole = read_file(dir / "a");
  EXPECT_EQ(error_of(dir.write("b", hashed(whole))), "no error");
  const auto number_at = [&](size_t place) {
    int64_t number = 0;
    std::memcpy(&number, whole.data() + place, sizeof(number));
    return number;
  };
  const size_t trailer = whole.size() - kTrailer;
  const auto directory = static_cast<size_t>(number_at(trailer + 8));
  const auto records = static_cast<size_t>(number_at(directory));
  // Of 64 bits: examples, directory, text and its size; the block of records; a record's offset.
  const std::vector<size_t> wide = {trailer,      trailer + 8, trailer + 16,
                                    trailer + 24, directory,   records};
  for (const size_t place : wide)
    for (const int64_t number : {int64_t{0x7ffffff0}, int64_t{0x7ffffffffffffff0}, int64_t{-8}}) {
      std::string damaged = whole;
      std::memcpy(damaged.data() + place, &number, sizeof(number));
      EXPECT_THAT(error_of(dir.write("b", hashed(damaged))), HasSubstr("is damaged"))
          << place << " " << number;
    }
  // Of 32 bits: how many tokens a record has.
  for (const size_t place : {records + 16, records + 20})
    for (const int32_t number : {0x7ffffff0, -8}) {
      std::string damaged = whole;
      std::memcpy(damaged.data() + place, &number, sizeof(number));
      EXPECT_THAT(error_of(dir.write("b", hashed(damaged))), HasSubstr("is damaged"))
          << place << " " << number;
    }
}

}  // namespace
}  // namespace qlora::data
