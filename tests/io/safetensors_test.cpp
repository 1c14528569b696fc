#include "io/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "tests/support/temp_dir.h"

namespace qlora::io {
namespace {

using test::TempDir;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

// A file with this header, as it is, before `data`.
std::string file_with(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  return file + header + data;
}

std::string complaint(const TempDir& dir, const std::string& bytes) {
  try {
    read_safetensors(dir.write("bad.safetensors", bytes));
  } catch (const FormatError& error) {
    return error.what();
  }
  return "accepted";
}

std::string text_of(const TensorView& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()};
}

std::string small_file(const TempDir& dir) {
  SafetensorsWriter writer(dir / "small.safetensors",
                           {{"a", DType::kU8, {2, 3}}, {"b", DType::kBF16, {1}}},
                           {{"format", "pt"}});
  writer.write("a", bytes_of("abcdef"));
  writer.write("b", bytes_of("xy"));
  writer.finish();
  return test::read_file(dir / "small.safetensors");
}

TEST(Safetensors, TheWriterMakesTheBytesOfTheFormatsOwnExample) {
  TempDir dir;
  const float one = 1;
  SafetensorsWriter writer(dir / "a.safetensors", {{"a", DType::kF32, {1}}});
  writer.write("a", std::as_bytes(std::span(&one, 1)));
  writer.finish();
  EXPECT_EQ(test::read_file(dir / "a.safetensors"),
            file_with(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  )",
                      std::string("\0\0\x80\x3f", 4)));
}

TEST(Safetensors, WhatIsWrittenIsReadBack) {
  TempDir dir;
  small_file(dir);
  const TensorFile file = read_safetensors(dir / "small.safetensors");
  ASSERT_EQ(file.tensors.size(), 2u);
  EXPECT_EQ(file.tensors[0].name, "a");
  EXPECT_EQ(file.tensors[0].dtype, DType::kU8);
  EXPECT_THAT(file.tensors[0].shape, ElementsAre(2, 3));
  EXPECT_EQ(text_of(file.tensors[0]), "abcdef");
  EXPECT_EQ(text_of(*file.find("b")), "xy");
  EXPECT_EQ(file.find("c"), nullptr);
  EXPECT_EQ(file.metadata.at("format"), "pt");
}

TEST(Safetensors, TheDataBeginsAtAMultipleOfEight) {
  TempDir dir;
  for (const std::string name : {"a", "ab", "abc", "\"quoted\"", "\u00e9"}) {
    SafetensorsWriter writer(dir / "x", {{name, DType::kU8, {1}}});
    writer.write(name, bytes_of("z"));
    writer.finish();
    EXPECT_EQ(test::read_file(dir / "x").size() % 8, 1u) << name;
    EXPECT_EQ(text_of(*read_safetensors(dir / "x").find(name)), "z");
  }
}

TEST(Safetensors, ScalarsAndEmptyTensorsAreLegal) {
  TempDir dir;
  SafetensorsWriter writer(dir / "x", {{"scalar", DType::kU8, {}}, {"none", DType::kF32, {0, 5}}});
  writer.write("scalar", bytes_of("s"));
  writer.write("none", {});
  writer.finish();
  const TensorFile file = read_safetensors(dir / "x");
  EXPECT_EQ(text_of(*file.find("scalar")), "s");
  EXPECT_EQ(file.find("none")->num_elements(), 0);
}

TEST(Safetensors, ViewsOutliveTheFileObject) {
  TempDir dir;
  small_file(dir);
  TensorView kept;
  {
    kept = *read_safetensors(dir / "small.safetensors").find("a");
    std::filesystem::remove(dir / "small.safetensors");
  }
  EXPECT_EQ(text_of(kept), "abcdef");
}

TEST(Safetensors, AFileCutAnywhereIsRefused) {
  TempDir dir;
  const std::string whole = small_file(dir);
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_THROW(read_safetensors(dir.write("cut", whole.substr(0, size))), FormatError) << size;
  EXPECT_THROW(read_safetensors(dir.write("long", whole + "x")), FormatError);
}

TEST(Safetensors, AnyDamagedByteIsRefusedOrReadWithinTheFile) {
  TempDir dir;
  const std::string whole = small_file(dir);
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const char damage : {'\0', '\xff', '9', '-', '"', '}'}) {
      std::string bytes = whole;
      bytes[at] = damage;
      try {
        size_t sum = 0;
        for (const TensorView& tensor : read_safetensors(dir.write("damaged", bytes)).tensors)
          for (const std::byte byte : tensor.bytes) sum += static_cast<size_t>(byte);
        EXPECT_LE(sum, whole.size() * 255);
      } catch (const FormatError&) {
      }
    }
  }
}

TEST(Safetensors, TensorsOfTypesThatNoWeightHasDoNotHideTheOthers) {
  TempDir dir;
  const TensorFile file = read_safetensors(
      dir.write("a", file_with(R"({"c":{"dtype":"C64","shape":[1],"data_offsets":[0,8]},)"
                               R"("e":{"dtype":"F8_E4M3FNUZ","shape":[2],"data_offsets":[8,10]},)"
                               R"("f":{"dtype":"F8_E5M2FNUZ","shape":[1],"data_offsets":[10,11]},)"
                               R"("t":{"dtype":"U8","shape":[2],"data_offsets":[11,13]}})",
                               "01234567890ab")));
  ASSERT_EQ(file.tensors.size(), 4u);
  EXPECT_EQ(file.tensors[0].dtype, DType::kC64);
  EXPECT_EQ(file.tensors[1].dtype, DType::kF8_E4M3FNUZ);
  EXPECT_EQ(file.tensors[3].name, "t");
  EXPECT_EQ(file.tensors[3].bytes.size(), 2u);
}

TEST(Safetensors, ALyingHeaderIsRefusedBySayingWhatItGotWrong) {
  TempDir dir;
  const auto entry = [](const std::string& dtype, const std::string& shape,
                        const std::string& offsets) {
    return R"({"t":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" +
           offsets + "}}";
  };
  const auto says = [&](const std::string& header, const std::string& data) {
    return complaint(dir, file_with(header, data));
  };
  EXPECT_THAT(says(entry("U8", "[4]", "[0,4]"), "abcd"), "accepted");
  EXPECT_THAT(says(entry("F7", "[4]", "[0,4]"), "abcd"), HasSubstr("dtype must be a known"));
  EXPECT_THAT(says(entry("Q4_0", "[32]", "[0,18]"), std::string(18, 'x')), HasSubstr("known"));
  EXPECT_THAT(says(entry("U8", "[5]", "[0,4]"), "abcd"), HasSubstr("5 bytes apart"));
  EXPECT_THAT(says(entry("U8", "[-4]", "[0,4]"), "abcd"), HasSubstr("shape[0] must be"));
  EXPECT_THAT(says(entry("U8", "[4.0]", "[0,4]"), "abcd"), HasSubstr("shape[0] must be"));
  EXPECT_THAT(says(entry("U8", "4", "[0,4]"), "abcd"), HasSubstr("shape must be"));
  EXPECT_THAT(says(entry("U8", "[4]", "[0,4,4]"), "abcd"), HasSubstr("[begin, end]"));
  EXPECT_THAT(says(entry("U8", "[4]", "[4,0]"), "abcd"), HasSubstr("data_offsets[1]"));
  EXPECT_THAT(says(entry("U8", "[4]", "[0,99]"), "abcd"), HasSubstr("4 bytes apart"));
  EXPECT_THAT(says(entry("U8", "[4]", "[1,5]"), "abcd"),
              HasSubstr("the file ends before the end of tensor t, which is at byte 5 of the data, "
                        "of which there are 4; it is cut short: download or copy it again"));
  EXPECT_THAT(says(entry("U8", "[4]", "[0,18446744073709551615]"), "abcd"),
              HasSubstr("data_offsets[1]"));
  EXPECT_THAT(says(entry("U8", "[3]", "[1,4]"), "abcd"), HasSubstr("must begin"));
  EXPECT_THAT(says(entry("U8", "[3]", "[0,3]"), "abcd"), HasSubstr("belong to no tensor"));
  EXPECT_THAT(says("[]", ""), HasSubstr("begin with '{'"));
  EXPECT_THAT(says(" {}", ""), HasSubstr("begin with '{'"));
  EXPECT_THAT(says(R"({"__metadata__":{"a":1}})", ""), HasSubstr("must be a string"));
  EXPECT_THAT(says(R"({"__metadata__":[]})", ""), HasSubstr("an object of strings"));
  EXPECT_THAT(says(R"({"t":3})", ""), HasSubstr("must be an object"));
  EXPECT_THAT(says("{\"\xff\":1}", ""), HasSubstr("UTF-8"));
}

TEST(Safetensors, NullMetadataIsNone) {
  TempDir dir;
  const std::string header =
      R"({"__metadata__":null,"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  const TensorFile file = read_safetensors(dir.write("x", file_with(header, "a")));
  EXPECT_TRUE(file.metadata.empty());
  EXPECT_EQ(text_of(*file.find("a")), "a");
}

TEST(Safetensors, AHeaderIsPaddedWithSpacesOnly) {
  TempDir dir;
  const std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  EXPECT_EQ(complaint(dir, file_with(header + "  ", "a")), "accepted");
  EXPECT_THAT(complaint(dir, file_with(header + std::string(2, '\0'), "a")), HasSubstr("a NUL"));
}

TEST(Safetensors, FilesOfAnotherKindAreNamed) {
  TempDir dir;
  const std::string pointer =
      "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12345\n";
  EXPECT_THAT(complaint(dir, pointer),
              AllOf(HasSubstr("Git LFS pointer"), HasSubstr("git lfs pull")));
  EXPECT_THAT(complaint(dir, "PK\x03\x04" + std::string(60, 'x')), HasSubstr("zip archive"));
  EXPECT_THAT(complaint(dir, "<html><body>login</body></html>"), HasSubstr("web page"));
}

TEST(Safetensors, AHeadersLengthThatLooksLikeAnotherKindIsOne) {
  TempDir dir;  // 640 is 80 02 00 ..., as a pickle begins
  std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  header.resize(640, ' ');
  EXPECT_EQ(complaint(dir, file_with(header, "a")), "accepted");
}

TEST(Safetensors, ShapesWhoseProductOverflowsAreRefused) {
  TempDir dir;
  const std::string big = "281474976710656";  // 2^48
  for (const std::string& shape : std::vector<std::string>{
           "[" + big + "," + big + "]", "[0," + big + "," + big + "]", "[65536," + big + ",0]"}) {
    EXPECT_THAT(complaint(dir, file_with(R"({"t":{"dtype":"F32","shape":)" + shape +
                                             R"(,"data_offsets":[0,0]}})",
                                         "")),
                HasSubstr("2^56"))
        << shape;
  }
}

TEST(Safetensors, OverlapsAndDuplicatesAreRefused) {
  TempDir dir;
  const std::string a = R"("a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]})";
  const std::string b = R"("b":{"dtype":"U8","shape":[3],"data_offsets":[1,4]})";
  EXPECT_THAT(complaint(dir, file_with("{" + a + "," + b + "}", "abcd")), HasSubstr("must begin"));
  EXPECT_THAT(complaint(dir, file_with("{" + a + "," + a + "}", "abc")), HasSubstr("twice"));
}

TEST(Safetensors, AHeaderLengthBeyondTheFileIsRefusedWithoutAllocating) {
  TempDir dir;
  EXPECT_THAT(complaint(dir, std::string(8, '\xff') + "{}"), HasSubstr("fit into the file"));
  EXPECT_THAT(complaint(dir, "1234567"), HasSubstr("too few"));
  EXPECT_THAT(complaint(dir, ""), HasSubstr("empty"));
  EXPECT_THROW(read_safetensors(dir / "absent"), IoError);
  EXPECT_THROW(read_safetensors(dir.path()), IoError);
}

TEST(SafetensorsWriter, HoldsItsCallersToTheHeader) {
  TempDir dir;
  SafetensorsWriter writer(dir / "x", {{"a", DType::kU8, {2}}, {"b", DType::kU8, {1}}});
  EXPECT_THROW(writer.write("b", bytes_of("x")), Error);
  EXPECT_THROW(writer.write("a", bytes_of("x")), Error);
  writer.write("a", bytes_of("xy"));
  EXPECT_THROW(writer.finish(), Error);
  writer.write("b", bytes_of("z"));
  EXPECT_THROW(writer.write("b", bytes_of("z")), Error);
  writer.finish();
  EXPECT_EQ(read_safetensors(dir / "x").tensors.size(), 2u);
}

TEST(SafetensorsWriter, RefusesWhatTheFormatCannotHold) {
  TempDir dir;
  using Headers = std::vector<TensorHeader>;
  EXPECT_THROW(SafetensorsWriter(dir / "x", Headers{{"a", DType::kQ4_0, {32}}}), Error);
  EXPECT_THROW(
      SafetensorsWriter(dir / "x", Headers{{"a", DType::kU8, {1}}, {"a", DType::kU8, {1}}}), Error);
  EXPECT_THROW(SafetensorsWriter(dir / "x", Headers{{"\xff", DType::kU8, {1}}}), Error);
}

TEST(SafetensorsWriter, AFullDiskIsAnIoErrorThatSaysSo) {
  const std::string megabytes(3 << 20, 'x');
  const auto write = [&] {
    SafetensorsWriter writer("/dev/full",
                             {{"a", DType::kU8, {static_cast<int64_t>(megabytes.size())}}});
    writer.write("a", bytes_of(megabytes));
    writer.finish();
  };
  try {
    write();
    FAIL() << "must throw";
  } catch (const IoError& error) {
    EXPECT_THAT(error.what(), HasSubstr("/dev/full"));
    EXPECT_THAT(error.what(), HasSubstr("No space left on device"));
  }
}

}  // namespace
}  // namespace qlora::io
