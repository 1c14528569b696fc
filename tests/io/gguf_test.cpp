#include "io/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "tests/support/temp_dir.h"

namespace qlora::io {
namespace {

using test::TempDir;
using testing::ElementsAre;
using testing::HasSubstr;
using Metadata = std::vector<std::pair<std::string, GgufValue>>;

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

TensorView header(const std::string& name, DType dtype, std::vector<int64_t> shape) {
  TensorView view;
  view.name = name;
  view.dtype = dtype;
  view.shape = std::move(shape);
  return view;
}

// The parts of a file, written by hand.
class Bytes {
 public:
  template <typename T>
  Bytes& put(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  Bytes& put_text(const std::string& text) {
    put(uint64_t{text.size()});
    text_ += text;
    return *this;
  }
  Bytes& begin(uint64_t tensors, uint64_t entries, uint32_t version = 3) {
    text_ = "GGUF";
    return put(version).put(tensors).put(entries);
  }
  Bytes& tensor(const std::string& name, std::vector<uint64_t> dims, uint32_t type,
                uint64_t offset) {
    put_text(name).put(static_cast<uint32_t>(dims.size()));
    for (const uint64_t size : dims) put(size);
    return put(type).put(offset);
  }
  // Padding, then `size` bytes of data.
  std::string with_data(size_t size, size_t alignment = 32) const {
    std::string file = text_;
    file.resize((file.size() + alignment - 1) / alignment * alignment, '\0');
    return file + std::string(size, 'd');
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

std::string complaint(const std::string& bytes) {
  TempDir dir;
  try {
    GgufFile file(dir.write("bad.gguf", bytes));
  } catch (const FormatError& error) {
    return error.what();
  }
  return "accepted";
}

std::string small_file(const TempDir& dir, const Metadata& metadata) {
  GgufWriter writer(dir / "small.gguf", metadata,
                    {header("q", DType::kQ4_0, {2, 32}), header("f", DType::kF32, {2, 4})});
  writer.write("q", bytes_of(std::string(36, 'q')));
  writer.write("f", bytes_of(std::string(32, 'f')));
  writer.finish();
  return test::read_file(dir / "small.gguf");
}

const Metadata kEveryType = {
    {"text", std::string("llama")},
    {"small", int64_t{-7}},
    {"wide", int64_t{-5'000'000'000}},
    {"count", uint64_t{7}},
    {"wide_count", uint64_t{5'000'000'000}},
    {"float", 1e-5f},
    {"double", 1e-5},
    {"yes", true},
    {"integers", std::vector<int64_t>{-1, 2}},
    {"counts", std::vector<uint64_t>{1, 5'000'000'000}},
    {"floats", std::vector<float>{0.5f, -0.0f}},
    {"doubles", std::vector<double>{0.1}},
    {"flags", std::vector<uint8_t>{1, 0}},
    {"bytes", std::vector<std::byte>{std::byte{0}, std::byte{200}}},
    {"texts", std::vector<std::string>{"", "a b", std::string("nul\0", 4)}},
};

TEST(Gguf, WhatIsWrittenIsReadBack) {
  TempDir dir;
  small_file(dir, kEveryType);
  const GgufFile file(dir / "small.gguf");
  ASSERT_EQ(file.metadata().size(), kEveryType.size());
  for (const auto& [key, value] : kEveryType) EXPECT_EQ(file.metadata().at(key), value) << key;
  ASSERT_EQ(file.tensors().size(), 2u);
  const TensorView* q = file.find("q");
  EXPECT_EQ(q->dtype, DType::kQ4_0);
  EXPECT_THAT(q->shape, ElementsAre(2, 32));
  EXPECT_EQ(q->bytes.size(), 36u);
  EXPECT_EQ(static_cast<char>(q->bytes[35]), 'q');
  EXPECT_EQ(static_cast<char>(file.find("f")->bytes[0]), 'f');
  EXPECT_EQ(file.find("g"), nullptr);
}

TEST(Gguf, DimensionsLieOnDiskFastestFirst) {
  const std::string bytes = Bytes().begin(1, 0).tensor("t", {4, 3, 2}, 24, 0).with_data(24);
  TempDir dir;
  EXPECT_THAT(GgufFile(dir.write("x", bytes)).tensors()[0].shape, ElementsAre(2, 3, 4));
}

TEST(Gguf, TheWriterMakesTheBytesThatTheFormatSays) {
  TempDir dir;
  GgufWriter writer(dir / "x", {{"k", uint64_t{9}}}, {header("t", DType::kI8, {1, 2})});
  writer.write("t", bytes_of("dd"));
  writer.finish();
  Bytes expected;
  expected.begin(1, 1).put_text("k").put(uint32_t{4}).put(uint32_t{9});
  expected.tensor("t", {2, 1}, 24, 0);
  EXPECT_EQ(test::read_file(dir / "x"), expected.with_data(2) + std::string(30, '\0'));
}

TEST(Gguf, AFileCutAnywhereIsRefused) {
  TempDir dir;
  const std::string whole = small_file(dir, kEveryType);
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_THROW(GgufFile(dir.write("cut", whole.substr(0, size))), FormatError) << size;
}

TEST(Gguf, AnyDamagedByteIsRefusedOrReadWithinTheFile) {
  TempDir dir;
  const std::string whole = small_file(dir, kEveryType);
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const char damage : {'\0', '\x01', '\x08', '\x09', '\x7f', '\xff'}) {
      std::string bytes = whole;
      bytes[at] = damage;
      try {
        size_t sum = 0;
        const GgufFile file(dir.write("damaged", bytes));
        for (const TensorView& tensor : file.tensors())
          for (const std::byte byte : tensor.bytes) sum += static_cast<size_t>(byte);
        EXPECT_LE(sum, whole.size() * 255);
      } catch (const FormatError&) {
      }
    }
  }
}

TEST(Gguf, OtherFilesAndVersionsAreRefusedByName) {
  EXPECT_THAT(complaint("PK\x03\x04" + std::string(60, '\0')), HasSubstr("must be a GGUF file"));
  EXPECT_THAT(complaint(Bytes().begin(0, 0, 1).text()), HasSubstr("found 1"));
  EXPECT_EQ(complaint(Bytes().begin(0, 0, 2).text()), "accepted");  // of the same layout
  EXPECT_THAT(complaint(Bytes().begin(0, 0, 4).text()), HasSubstr("found 4"));
  EXPECT_THAT(complaint(Bytes().begin(0, 0, 0x03000000).text()), HasSubstr("big-endian"));
  EXPECT_THAT(complaint(Bytes().begin(0, 0, 0x02000000).text()), HasSubstr("big-endian"));
  EXPECT_EQ(complaint(Bytes().begin(0, 0).text()), "accepted");
}

TEST(Gguf, AnotherKindOfFileIsNamed) {
  EXPECT_THAT(complaint("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n"),
              HasSubstr("Git LFS pointer"));
  EXPECT_THAT(complaint("PK\x03\x04" + std::string(60, '\0')), HasSubstr("zip archive"));
}

// Part `index` of `count`, with one tensor of eight bytes that holds its letter.
void write_part(const std::string& path, uint64_t index, uint64_t count, uint64_t tensors) {
  const char letter = static_cast<char>('a' + index);
  GgufWriter writer(path,
                    {{"split.no", index}, {"split.count", count}, {"split.tensors.count", tensors}},
                    {header(std::string(1, letter), DType::kF32, {2})});
  writer.write(std::string(1, letter), bytes_of(std::string(8, letter)));
  writer.finish();
}

TEST(GgufInParts, TheFirstStandsForAll) {
  TempDir dir;
  for (uint64_t i = 0; i < 3; ++i)
    write_part(dir / fmt::format("m-0000{}-of-00003.gguf", i + 1), i, 3, 3);
  const GgufFile file(dir / "m-00001-of-00003.gguf");
  ASSERT_EQ(file.tensors().size(), 3u);
  for (const char* name : {"a", "b", "c"})
    EXPECT_EQ(static_cast<char>(file.find(name)->bytes[7]), *name);
  EXPECT_EQ(file.find("c")->file, dir / "m-00003-of-00003.gguf");
}

TEST(GgufInParts, AnotherPartAMissingOneAndAWrongOneAreNamed) {
  TempDir dir;
  const auto says = [&](const std::string& name) -> std::string {
    try {
      GgufFile file(dir / name);
    } catch (const FormatError& error) {
      return error.what();
    }
    return "accepted";
  };
  write_part(dir / "m-00001-of-00002.gguf", 0, 2, 2);
  EXPECT_THAT(says("m-00001-of-00002.gguf"), HasSubstr("m-00002-of-00002.gguf is missing"));
  write_part(dir / "m-00002-of-00002.gguf", 1, 2, 2);
  EXPECT_EQ(says("m-00001-of-00002.gguf"), "accepted");
  EXPECT_THAT(says("m-00002-of-00002.gguf"), HasSubstr("m-00001-of-00002.gguf"));
  std::filesystem::copy_file(dir / "m-00001-of-00002.gguf", dir / "renamed.gguf");
  EXPECT_THAT(says("renamed.gguf"), HasSubstr("llama-gguf-split --merge"));
  write_part(dir / "m-00001-of-00002.gguf", 0, 2, 3);
  EXPECT_THAT(says("m-00001-of-00002.gguf"), HasSubstr("split.tensors.count is 3"));
  write_part(dir / "m-00001-of-00002.gguf", 0, 2, 2);
  write_part(dir / "m-00002-of-00002.gguf", 0, 2, 2);
  EXPECT_THAT(says("m-00001-of-00002.gguf"), HasSubstr("stands there twice"));
}

TEST(Gguf, LyingCountsAndLengthsAreRefusedBeforeMemoryIsTaken) {
  const uint64_t huge = ~uint64_t{0};
  EXPECT_THAT(complaint(Bytes().begin(huge, 0).text()), HasSubstr("the number of tensors"));
  EXPECT_THAT(complaint(Bytes().begin(0, huge).text()), HasSubstr("the number of metadata"));
  EXPECT_THAT(complaint(Bytes().begin(0, 1).put(huge).with_data(64)), HasSubstr("a metadata key"));
  EXPECT_THAT(complaint(Bytes().begin(0, 1).put_text("k").put(uint32_t{8}).put(huge).text()),
              HasSubstr("within a string"));
  for (const uint32_t type : {0u, 4u, 7u, 8u, 12u}) {
    Bytes bytes;
    bytes.begin(0, 1).put_text("k").put(uint32_t{9}).put(type).put(huge);
    EXPECT_THAT(complaint(bytes.with_data(64)), HasSubstr("the length of an array")) << type;
  }
}

TEST(Gguf, ValueTypesThatDoNotExistAndArraysOfArraysAreRefused) {
  EXPECT_THAT(complaint(Bytes().begin(0, 1).put_text("k").put(uint32_t{13}).with_data(64)),
              HasSubstr("found 13"));
  Bytes nested;
  nested.begin(0, 1).put_text("k").put(uint32_t{9}).put(uint32_t{9}).put(uint64_t{1});
  EXPECT_THAT(complaint(nested.with_data(64)), HasSubstr("the type of an array"));
}

TEST(Gguf, TensorsThatCannotBeAreRefused) {
  const auto says = [](std::vector<uint64_t> dims, uint32_t type, uint64_t offset) {
    return complaint(Bytes().begin(1, 0).tensor("odd", dims, type, offset).with_data(64));
  };
  EXPECT_EQ(says({64}, 24, 0), "accepted");
  EXPECT_THAT(says({65}, 24, 0), HasSubstr("odd must lie within"));
  EXPECT_THAT(says({32}, 24, 64), HasSubstr("odd must lie within"));
  EXPECT_THAT(says({32}, 24, ~uint64_t{31}), HasSubstr("odd must lie within"));
  EXPECT_THAT(says({32}, 24, 31), HasSubstr("multiple of 32, found 31"));
  EXPECT_THAT(says({31}, 2, 0), HasSubstr("rows of a multiple of 32, found 31"));
  EXPECT_THAT(says({128}, 12, 0), HasSubstr("rows of a multiple of 256"));
  EXPECT_THAT(says({}, 24, 0), HasSubstr("number of dimensions"));
  EXPECT_THAT(says({1, 1, 1, 1, 1}, 24, 0), HasSubstr("number of dimensions"));
  EXPECT_THAT(says({0}, 24, 0), HasSubstr("dimension"));
  EXPECT_THAT(says({~uint64_t{0}}, 24, 0), HasSubstr("dimension"));
  const uint64_t big = uint64_t{1} << 48;
  EXPECT_THAT(says({big, big, big, big}, 24, 0), HasSubstr("its shape is larger"));
}

TEST(Gguf, AnUnreadableTypeIsNamedWithItsTensor) {
  const auto says = [](uint32_t type) {
    return complaint(Bytes().begin(1, 0).tensor("blk.0.w", {256}, type, 0).with_data(512));
  };
  EXPECT_THAT(says(23), testing::AllOf(HasSubstr("blk.0.w"), HasSubstr("IQ4_XS")));
  EXPECT_THAT(says(40), HasSubstr("NVFP4"));
  EXPECT_THAT(says(4), HasSubstr("number 4"));
  EXPECT_THAT(says(~0u), HasSubstr("number 4294967295"));
}

TEST(Gguf, Mxfp4HasBlocksOf17BytesFor32Numbers) {
  const TempDir dir;
  const GgufFile file(dir.write(
      "mxfp4.gguf", Bytes().begin(1, 0).tensor("blk.0.w", {64, 3}, 39, 0).with_data(102)));
  const TensorView* view = file.find("blk.0.w");
  ASSERT_NE(view, nullptr);
  EXPECT_EQ(dtype_name(view->dtype), "MXFP4");
  EXPECT_THAT(view->shape, ElementsAre(3, 64));
  EXPECT_EQ(view->bytes.size(), 102u);
}

TEST(Gguf, OverlapsAndDuplicatesAreRefused) {
  EXPECT_THAT(
      complaint(
          Bytes().begin(2, 0).tensor("a", {64}, 24, 0).tensor("b", {32}, 24, 32).with_data(64)),
      HasSubstr("a and b overlap"));
  EXPECT_THAT(
      complaint(
          Bytes().begin(2, 0).tensor("a", {32}, 24, 0).tensor("a", {32}, 24, 32).with_data(64)),
      HasSubstr("tensor a stands there twice"));
  Bytes twice;
  twice.begin(0, 2);
  for (int i = 0; i < 2; ++i) twice.put_text("k").put(uint32_t{7}).put(uint8_t{1});
  EXPECT_THAT(complaint(twice.text()), HasSubstr("key k stands there twice"));
}

TEST(Gguf, TheAlignmentOfTheMetadataIsHonoured) {
  TempDir dir;
  const auto file = [](uint32_t alignment, size_t padded_to) {
    Bytes bytes;
    bytes.begin(1, 1).put_text("general.alignment").put(uint32_t{4}).put(alignment);
    return bytes.tensor("t", {64}, 24, 0).with_data(64, padded_to);
  };
  const GgufFile read(dir.write("x", file(128, 128)));
  EXPECT_EQ(static_cast<char>(read.tensors()[0].bytes[0]), 'd');
  EXPECT_EQ(static_cast<char>(read.tensors()[0].bytes[63]), 'd');
  EXPECT_THAT(complaint(file(128, 32)), HasSubstr("must lie within"));
  EXPECT_THAT(complaint(file(0, 32)), HasSubstr("general.alignment"));
  EXPECT_THAT(complaint(file(48, 32)), HasSubstr("power of two"));

  small_file(dir, {{"general.alignment", uint64_t{256}}});
  const GgufFile written(dir / "small.gguf");
  EXPECT_EQ(static_cast<char>(written.find("f")->bytes[31]), 'f');
  EXPECT_EQ(written.find("f")->bytes.data() - written.find("q")->bytes.data(), 256);
}

TEST(Gguf, TypedReadsSayWhichKeyIsWrong) {
  TempDir dir;
  small_file(dir, kEveryType);
  const GgufFile file(dir / "small.gguf");
  EXPECT_EQ(file.text("text"), "llama");
  EXPECT_EQ(file.integer("small", -10, 10), -7);
  EXPECT_EQ(file.integer("wide_count", 0, INT64_MAX), 5'000'000'000);
  EXPECT_EQ(file.number("float"), 1e-5);
  EXPECT_EQ(file.number("count"), 7.0);
  EXPECT_TRUE(file.boolean("yes"));
  EXPECT_EQ(file.texts("texts")[1], "a b");
  EXPECT_THAT(file.integers("counts"), ElementsAre(1, 5'000'000'000));
  EXPECT_THAT(file.numbers("doubles"), ElementsAre(0.1f));
  EXPECT_THAT(file.integers("bytes"), ElementsAre(0, 200));
  EXPECT_EQ(file.bytes("bytes"), std::string("\0\xc8", 2));
  EXPECT_EQ(file.bytes("integers"), "\xff\x02");
  EXPECT_EQ(file.text_or("absent", "else"), "else");
  EXPECT_EQ(file.integer_or("absent", 0, 9, 3), 3);
  EXPECT_EQ(file.number_or("absent", 2.5), 2.5);
  EXPECT_TRUE(file.boolean_or("absent", true));
  EXPECT_THROW(file.text("absent"), FormatError);
  EXPECT_THROW(file.text("count"), FormatError);
  EXPECT_THROW(file.text_or("count", ""), FormatError);
  EXPECT_THROW(file.integer("count", 8, 9), FormatError);
  EXPECT_THROW(file.integer("float", 0, 9), FormatError);
  EXPECT_THROW(file.number("text"), FormatError);
  EXPECT_THROW(file.boolean("count"), FormatError);
  EXPECT_THROW(file.texts("integers"), FormatError);
  EXPECT_THROW(file.integers("floats"), FormatError);
  EXPECT_THROW(file.numbers("texts"), FormatError);
  EXPECT_THROW(file.bytes("counts"), FormatError);
  EXPECT_THROW(file.bytes("text"), FormatError);
}

TEST(Gguf, IntegersBeyond63BitsAreRefusedNotWrapped) {
  TempDir dir;
  small_file(dir, {{"one", ~uint64_t{0}}, {"many", std::vector<uint64_t>{~uint64_t{0}}}});
  const GgufFile file(dir / "small.gguf");
  EXPECT_THROW(file.integer("one", INT64_MIN, INT64_MAX), FormatError);
  EXPECT_THROW(file.integers("many"), FormatError);
}

TEST(GgufWriter, HoldsItsCallersToTheHeaders) {
  TempDir dir;
  GgufWriter writer(dir / "x", {}, {header("a", DType::kI8, {2}), header("b", DType::kI8, {1})});
  EXPECT_THROW(writer.write("b", bytes_of("x")), Error);
  EXPECT_THROW(writer.write("a", bytes_of("x")), Error);
  EXPECT_THROW(writer.finish(), Error);
}

TEST(GgufWriter, RefusesWhatTheFormatCannotHold) {
  TempDir dir;
  const auto write = [&](const Metadata& metadata, std::vector<TensorView> headers) {
    GgufWriter writer(dir / "x", metadata, std::move(headers));
  };
  EXPECT_THROW(write({}, {header("a", DType::kQ4_0, {2, 31})}), Error);
  EXPECT_THROW(write({}, {header("a", DType::kU8, {1})}), Error);
  EXPECT_THROW(write({}, {header("a", DType::kI8, {})}), Error);
  EXPECT_THROW(write({}, {header("a", DType::kI8, {0})}), Error);
  EXPECT_THROW(write({}, {header("a", DType::kI8, {1}), header("a", DType::kI8, {1})}), Error);
  EXPECT_THROW(write({{"k", true}, {"k", true}}, {}), Error);
  EXPECT_THROW(write({{"general.alignment", uint64_t{48}}}, {}), Error);
}

TEST(GgufWriter, AFullDiskIsAnIoErrorThatSaysSo) {
  const auto write = [] {
    GgufWriter writer("/dev/full", {}, {header("a", DType::kI8, {3 << 20})});
    writer.write("a", bytes_of(std::string(3 << 20, 'x')));
    writer.finish();
  };
  EXPECT_THROW(
      {
        try {
          write();
        } catch (const IoError& error) {
          EXPECT_THAT(error.what(), HasSubstr("No space left on device"));
          throw;
        }
      },
      IoError);
}

}  // namespace
}  // namespace qlora::io
