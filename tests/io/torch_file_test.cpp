#include "io/torch_file/torch_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <limits>

#include "base/error.h"
#include "io/mapped_file.h"
#include "tests/support/temp_dir.h"
#include "tests/support/torch_letters.h"
#include "tests/support/torch_writer.h"

namespace qlora::io {
namespace {

namespace pk = test::pickle;
using test::complaint;
using test::complaint_of;
using test::kLetters;
using test::letters;
using test::TempDir;
using test::view_of_letters;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string text_of(const TensorView& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()};
}

template <typename Number>
std::vector<Number> numbers_of(const TensorView& tensor) {
  std::vector<Number> numbers(tensor.bytes.size() / sizeof(Number));
  std::memcpy(numbers.data(), tensor.bytes.data(), tensor.bytes.size());
  return numbers;
}

TensorFile read(const std::string& pickle, const std::vector<std::string>& storages = {"abcdef"}) {
  const TempDir dir;
  return read_torch_file(dir.write("m.bin", test::torch_file(pickle, storages)));
}

TEST(TorchFile, ReadsTheTensorsOfAStateDict) {
  const TempDir dir;
  const std::string pickle = pk::whole(
      pk::dict({{"a.weight", pk::tensor(pk::storage("HalfStorage", "0", 3), 0, {1, 3}, {3, 1})},
                {"b", pk::tensor(pk::storage("ByteStorage", "1", 2), 0, {2}, {1})}},
               pk::ordered_dict()));
  const std::string path = dir.write("m.bin", test::torch_file(pickle, {"abcdef", "xy"}));
  const TensorFile file = read_torch_file(path);
  ASSERT_EQ(file.tensors.size(), 2u);
  EXPECT_EQ(file.tensors[0].name, "a.weight");
  EXPECT_EQ(file.tensors[0].dtype, DType::kF16);
  EXPECT_THAT(file.tensors[0].shape, ElementsAre(1, 3));
  EXPECT_EQ(text_of(file.tensors[0]), "abcdef");
  EXPECT_EQ(file.tensors[0].file, path);
  EXPECT_EQ(text_of(*file.find("b")), "xy");
  EXPECT_EQ(file.find("c"), nullptr);
}

TEST(TorchFile, ViewsOutliveTheFileObject) {
  const TempDir dir;
  TensorView kept, turned;
  {
    const std::string path = dir.write(
        "m", test::torch_file(
                 pk::whole(pk::dict({{"k", kLetters}, {"t", view_of_letters(0, {2, 3}, {1, 2})}})),
                 {"abcdef"}));
    const TensorFile file = read_torch_file(path);
    kept = *file.find("k"), turned = *file.find("t");
    std::filesystem::remove(path);
  }
  EXPECT_EQ(text_of(kept), "abcdef");
  EXPECT_EQ(text_of(turned), "acebdf");
}

TEST(TorchFile, EveryStorageHasItsType) {
  const std::vector<std::pair<std::string, DType>> types = {
      {"BoolStorage", DType::kBool}, {"ByteStorage", DType::kU8},
      {"CharStorage", DType::kI8},   {"ShortStorage", DType::kI16},
      {"IntStorage", DType::kI32},   {"LongStorage", DType::kI64},
      {"HalfStorage", DType::kF16},  {"BFloat16Storage", DType::kBF16},
      {"FloatStorage", DType::kF32}, {"DoubleStorage", DType::kF64}};
  for (const auto& [name, dtype] : types) {
    const std::string bytes(static_cast<size_t>(2 * bytes_per_block(dtype)), 'x');
    const TensorFile file = read(
        pk::whole(pk::dict({{"t", pk::tensor(pk::storage(name, "0", 2), 0, {2}, {1})}})), {bytes});
    EXPECT_EQ(file.tensors.at(0).dtype, dtype) << name;
    EXPECT_EQ(text_of(file.tensors[0]), bytes) << name;
  }
}

TEST(TorchFile, TypesWithoutAStorageOfTheirOwnAreNamedBesideIt) {
  const std::vector<std::pair<std::string, DType>> types = {{"float8_e4m3fn", DType::kF8_E4M3},
                                                            {"float8_e5m2", DType::kF8_E5M2},
                                                            {"float8_e8m0fnu", DType::kF8_E8M0},
                                                            {"uint16", DType::kU16},
                                                            {"uint32", DType::kU32},
                                                            {"uint64", DType::kU64}};
  const auto tensor = [](const std::string& type, int64_t size) {
    return pk::whole(
        pk::dict({{"t", pk::call(pk::global("torch._utils", "_rebuild_tensor_v3"),
                                 {pk::storage("UntypedStorage", "0", 2 * size), pk::integer(1),
                                  pk::integers({1}), pk::integers({1}), pk::kFalse,
                                  pk::ordered_dict(), pk::global("torch", type)})}}));
  };
  for (const auto& [name, dtype] : types) {
    const int64_t size = bytes_per_block(dtype);
    const std::string bytes =
        std::string(static_cast<size_t>(size), 'x') + std::string(static_cast<size_t>(size), 'y');
    const TensorFile file = read(tensor(name, size), {bytes});
    EXPECT_EQ(file.tensors.at(0).dtype, dtype) << name;
    EXPECT_EQ(text_of(file.tensors[0]), bytes.substr(static_cast<size_t>(size))) << name;
  }
  EXPECT_THAT(complaint(tensor("complex64", 3)), HasSubstr("torch.complex64"));
  EXPECT_THAT(complaint(tensor("Size", 3)), HasSubstr("torch.Size"));
}

TEST(TorchFile, ElementsAreReadByOffsetAndStrides) {
  const auto read_letters = [](int64_t offset, const std::vector<int64_t>& sizes,
                               const std::vector<int64_t>& strides) {
    return text_of(read(letters(offset, sizes, strides)).tensors.at(0));
  };
  EXPECT_EQ(read_letters(0, {2, 3}, {3, 1}), "abcdef");
  EXPECT_EQ(read_letters(0, {3, 2}, {1, 3}), "adbecf");  // transposed
  EXPECT_EQ(read_letters(2, {2, 2}, {2, 1}), "cdef");
  EXPECT_EQ(read_letters(1, {2, 2}, {3, 1}), "bcef");  // columns of a wider matrix
  EXPECT_EQ(read_letters(0, {3}, {2}), "ace");
  EXPECT_EQ(read_letters(5, {}, {}), "f");
  EXPECT_EQ(read_letters(0, {1, 6, 1}, {99, 1, 1'000'000}), "abcdef");  // of one: any stride
  EXPECT_EQ(read_letters(0, {3, 1}, {2, int64_t{1} << 62}), "ace");
  EXPECT_EQ(read_letters(0, {1, 3, 2}, {77, 1, 3}), "adbecf");
  EXPECT_EQ(read_letters(0, {3, 2, 1}, {2, 1, 6}), "abcdef");
  EXPECT_EQ(read_letters(1, {2, 1, 2}, {2, 9, 1}), "bcde");
  EXPECT_EQ(read_letters(0, {2}, {0}), "aa");
}

TEST(TorchFile, ATensorWithoutElementsNeedsNone) {
  const TensorFile file = read(
      pk::whole(
          pk::dict({{"t", pk::tensor(pk::storage("FloatStorage", "0", 0), 0, {0, 3}, {3, 1})}})),
      {""});
  EXPECT_THAT(file.tensors.at(0).shape, ElementsAre(0, 3));
  EXPECT_THAT(file.tensors[0].bytes, IsEmpty());
}

TEST(TorchFile, TensorsMayShareAStorage) {
  const TensorFile file = read(pk::whole(pk::dict({{"embedding", kLetters}, {"head", kLetters}})));
  EXPECT_EQ(file.find("embedding")->bytes.data(), file.find("head")->bytes.data());
}

TEST(TorchFile, CopiedTensorsKeepTheirValuesWhenPagesAreDropped) {
  constexpr int64_t kRows = 300, kColumns = 200;
  std::string bytes;
  for (int64_t i = 0; i < kRows * kColumns; ++i) bytes += test::little_endian(i + 1, 4);
  const TensorFile file =
      read(pk::whole(pk::dict({{"t", pk::tensor(pk::storage("IntStorage", "0", kRows * kColumns), 0,
                                                {kColumns, kRows}, {1, kColumns})}})),
           {bytes});
  drop_pages(file.tensors.at(0).bytes);
  const std::vector<int32_t> values = numbers_of<int32_t>(file.tensors[0]);
  for (int64_t i = 0; i < kColumns; ++i)
    for (int64_t j = 0; j < kRows; ++j)
      ASSERT_EQ(values.at(static_cast<size_t>(i * kRows + j)), j * kColumns + i + 1);
}

TEST(TorchFile, ParametersAreTheirTensors) {
  const auto parameter = [](const std::string& function, std::vector<std::string> more) {
    std::vector<std::string> arguments = {kLetters, pk::kTrue, pk::ordered_dict()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return pk::call(pk::global("torch._utils", function), arguments);
  };
  const TensorFile file = read(pk::whole(pk::dict(
      {{"a", parameter("_rebuild_parameter", {})},
       {"b", parameter("_rebuild_parameter_with_state", {pk::dict({{"_x", pk::kTrue}})})}})));
  EXPECT_EQ(text_of(*file.find("a")), "abcdef");
  EXPECT_EQ(text_of(*file.find("b")), "abcdef");
}

TEST(TorchFile, TheAttributesOfAStateDictAreLeftOut) {
  const std::string attributes =
      pk::dict({{"_metadata",
                 pk::dict({{"", pk::dict({{"version", pk::integer(1)}})}}, pk::ordered_dict())}});
  const TensorFile file =
      read(pk::whole(pk::dict({{"t", kLetters}}, pk::ordered_dict()) + attributes + "b"));
  EXPECT_EQ(file.tensors.size(), 1u);
  EXPECT_EQ(text_of(*file.find("t")), "abcdef");
}

TEST(TorchFile, DictsWithinADictAreFlattened) {
  const std::string layer = pk::dict(
      {{"W_q", kLetters},
       {"nbits", pk::integer(4)},
       {"axis", pk::integer(-1)},
       {"scale", pk::joined({"G\x3f\xf8", std::string(6, '\0')})},  // 1.5, big-endian
       {"view_as_float", pk::kTrue},
       {"shape", pk::call(pk::global("torch", "Size"), {pk::integers({7, int64_t{1} << 40})})},
       {"ratios", pk::list({pk::integer(2), pk::joined({"G\x3f\xe0", std::string(6, '\0')})})},
       {"parts", pk::list({kLetters, pk::kNone})},
       {"none", pk::tuple({})},
       {"packing", pk::text("4bit_u8")},
       {"compute_dtype", pk::global("torch", "float16")},
       {"device", pk::call(pk::global("torch", "device"), {pk::text("cuda"), pk::integer(0)})},
       {"bytes", pk::call(pk::global("_codecs", "encode"), {pk::text("x"), pk::text("latin1")})},
       {"meta", pk::kNone}});
  const std::string by_number = pk::joined({"}", pk::integer(3), kLetters, "s"});
  const TensorFile file = read(pk::whole(pk::dict({{"layers.0", layer}, {"state", by_number}})));
  std::vector<std::string> names;
  for (const TensorView& tensor : file.tensors) names.push_back(tensor.name);
  EXPECT_THAT(names,
              ElementsAre("layers.0.W_q", "layers.0.nbits", "layers.0.axis", "layers.0.scale",
                          "layers.0.view_as_float", "layers.0.shape", "layers.0.ratios",
                          "layers.0.parts.0", "layers.0.none", "state.3"));
  const auto at = [&](const std::string& name) { return *file.find("layers.0." + name); };
  EXPECT_THAT(numbers_of<int64_t>(at("nbits")), ElementsAre(4));
  EXPECT_THAT(at("nbits").shape, IsEmpty());
  EXPECT_EQ(at("nbits").dtype, DType::kI64);
  EXPECT_THAT(numbers_of<int64_t>(at("axis")), ElementsAre(-1));
  EXPECT_EQ(at("scale").dtype, DType::kF64);
  EXPECT_THAT(numbers_of<double>(at("scale")), ElementsAre(1.5));
  EXPECT_EQ(at("view_as_float").dtype, DType::kBool);
  EXPECT_EQ(text_of(at("view_as_float")), "\x01");
  EXPECT_THAT(numbers_of<int64_t>(at("shape")), ElementsAre(7, int64_t{1} << 40));
  EXPECT_THAT(at("shape").shape, ElementsAre(2));
  EXPECT_THAT(numbers_of<double>(at("ratios")), ElementsAre(2.0, 0.5));
  EXPECT_THAT(at("none").shape, ElementsAre(0));
}

TEST(TorchFile, NewerProtocolsAreReadAsWell) {
  const auto short_text = [](const std::string& value) {
    return test::pickle::joined({"\x8c", test::little_endian(value.size(), 1), value});
  };
  const auto remembered = [](const std::string& value) { return value + "\x94"; };
  const auto global = [&](const std::string& module, const std::string& name) {
    return remembered(short_text(module)) + remembered(short_text(name)) + "\x93";
  };
  // The first value remembered is the key, the second the module that OrderedDict is taken from.
  const std::string key = remembered(short_text("t"));
  const std::string storage = pk::joined({"(", short_text("storage"), global("torch", "IntStorage"),
                                          short_text("0"), short_text("cpu"), "K\x02tQ"});
  const std::string tensor =
      pk::joined({global("torch._utils", "_rebuild_tensor_v2"), "(", storage, "K\x01", "K\x01\x85",
                  "M\x01", std::string(1, '\0'), "\x85", pk::kFalse, "}tR"});
  const std::string value = pk::joined(
      {"}", key, tensor, "s", short_text("again"), "h", std::string(1, '\0'), "s",
       short_text("word"), "J\xfe\xff\xff\xff", "s", short_text("raw"), "C\x02\xff\xfe", "s."});
  const std::string pickle =
      pk::joined({"\x80\x05\x95", test::little_endian(value.size(), 8), value});
  const TensorFile file = read(pickle, {"abcdefgh"});
  ASSERT_EQ(file.tensors.size(), 2u);
  EXPECT_EQ(text_of(*file.find("t")), "efgh");
  EXPECT_THAT(numbers_of<int64_t>(*file.find("word")), ElementsAre(-2));
}

TEST(TorchFile, IntegersOfAnyLengthUpTo64BitsAreRead) {
  const auto value = [](const std::string& digits) {
    const std::string integer = pk::joined({"\x8a", test::little_endian(digits.size(), 1), digits});
    return numbers_of<int64_t>(read(pk::whole(pk::dict({{"n", integer}}))).tensors.at(0)).at(0);
  };
  EXPECT_EQ(value(""), 0);
  EXPECT_EQ(value("\xff"), -1);
  EXPECT_EQ(value("\x7f"), 127);
  EXPECT_EQ(value("\x80"), -128);
  EXPECT_EQ(value(std::string{'\xff', '\0'}), 255);
  EXPECT_EQ(value(std::string(7, '\0') + "\x80"), std::numeric_limits<int64_t>::min());
  EXPECT_THAT(
      complaint(pk::whole(pk::dict({{"n", pk::joined({"\x8a\x09", std::string(9, '\1')})}}))),
      HasSubstr("64 bits"));
}

TEST(TorchFile, ArchivesWithoutZip64AreRead) {
  const std::string pickle = letters(0, {6}, {1});
  EXPECT_EQ(complaint_of(test::zip(test::torch_entries(pickle, {"abcdef"}))), "accepted");
  EXPECT_EQ(complaint_of(test::torch_file(pickle, {"abcdef"})), "accepted");
}

}  // namespace
}  // namespace qlora::io
