// What the reader of torch.save's files must refuse, each with what is wrong.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "io/torch_file/torch_file.h"
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
using testing::AllOf;
using testing::HasSubstr;

TEST(TorchFileRefusals, AFileCutAnywhereIsRefused) {
  const TempDir dir;
  for (const bool wide : {false, true}) {
    const std::string whole =
        test::zip(test::torch_entries(letters(0, {2, 3}, {1, 2}), {"abcdef"}), {.wide = wide});
    for (size_t size = 0; size < whole.size(); ++size)
      EXPECT_THROW(read_torch_file(dir.write("cut", whole.substr(0, size))), FormatError) << size;
    EXPECT_THROW(read_torch_file(dir.write("long", whole + "x")), FormatError);
  }
}

TEST(TorchFileRefusals, APickleCutAnywhereIsRefused) {
  const std::string whole = letters(0, {2, 3}, {1, 2});
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_NE(complaint(whole.substr(0, size)), "accepted") << size;
  EXPECT_THAT(complaint(whole + "."), HasSubstr("must end with one value"));
  EXPECT_THAT(complaint(pk::whole(pk::kNone + pk::dict({}))), HasSubstr("must end with one value"));
}

TEST(TorchFileRefusals, AnyDamagedByteIsRefusedOrReadWithinTheFile) {
  const TempDir dir;
  const std::string whole =
      test::torch_file(pk::whole(pk::dict({{"t", view_of_letters(0, {2, 3}, {1, 2})},
                                           {"u", pk::dict({{"v", kLetters}})}})),
                       {"abcdef"});
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const char damage : {'\0', '\xff', '\x7f', '\x01', '(', 'R'}) {
      std::string bytes = whole;
      bytes[at] = damage;
      try {
        size_t sum = 0;
        for (const TensorView& tensor : read_torch_file(dir.write("damaged", bytes)).tensors)
          for (const std::byte byte : tensor.bytes) sum += static_cast<size_t>(byte);
        EXPECT_LE(sum, whole.size() * 255);
      } catch (const FormatError&) {
      }
    }
  }
}

TEST(TorchFileRefusals, AnArchiveThatLiesIsRefusedBySayingWhatItGotWrong) {
  const auto says = [](const test::ZipOptions& options) {
    return complaint_of(test::zip(test::torch_entries(letters(0, {6}, {1}), {"abcdef"}), options));
  };
  for (const bool wide : {false, true}) {
    EXPECT_EQ(says({.wide = wide}), "accepted");
    EXPECT_THAT(says({.wide = wide, .method = 8}), HasSubstr("stored as it is"));
    EXPECT_THAT(says({.wide = wide, .flags = 1}), HasSubstr("encrypted"));
    EXPECT_THAT(says({.wide = wide, .larger = 1 << 20}), HasSubstr("outside"));
    EXPECT_THAT(says({.wide = wide, .further = 1}), HasSubstr("must begin at byte"));
    EXPECT_THAT(says({.wide = wide, .further = 1 << 20}), HasSubstr("outside"));
  }
  EXPECT_THAT(says({.wide = true, .larger = -1000}), HasSubstr("outside"));
  EXPECT_THAT(says({.wide = true, .further = -1000}), HasSubstr("outside"));
}

TEST(TorchFileRefusals, AnArchiveMustHoldOnePickleAndEveryNameOnce) {
  const std::string pickle = letters(0, {6}, {1});
  const auto says = [&](const test::Files& more) {
    test::Files files = test::torch_entries(pickle, {"abcdef"});
    files.insert(files.end(), more.begin(), more.end());
    return complaint_of(test::zip(files));
  };
  EXPECT_EQ(says({{"archive/code/x.py", "import os"}, {"archive/inner/data.pkl", ""}}), "accepted");
  EXPECT_THAT(says({{"archive/data/0", "abcdef"}}), HasSubstr("twice"));
  EXPECT_THAT(says({{"other/data.pkl", pickle}}), HasSubstr("holds several"));
  EXPECT_THAT(complaint_of(test::zip({{"archive/data/0", "abcdef"}})), HasSubstr("no data.pkl"));
  EXPECT_THAT(complaint_of(test::zip({})), HasSubstr("must be a file that torch.save wrote"));
}

TEST(TorchFileRefusals, FilesOfAnotherKindAreNamed) {
  const std::string old =
      "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.";
  EXPECT_THAT(complaint_of(old), AllOf(HasSubstr("before torch 1.6"), HasSubstr("torch.load(")));
  EXPECT_THAT(complaint_of("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n"),
              HasSubstr("git lfs pull"));
  EXPECT_THAT(complaint_of("some text"), HasSubstr("must be a file that torch.save wrote"));
  EXPECT_THAT(complaint_of(""), HasSubstr("empty"));
  const TempDir dir;
  EXPECT_THROW(read_torch_file(dir / "absent"), IoError);
}

TEST(TorchFileRefusals, NumbersInBigEndianOrderAreRefused) {
  test::Files files = test::torch_entries(letters(0, {6}, {1}), {"abcdef"});
  files[1].second = "big";
  EXPECT_THAT(complaint_of(test::zip(files)), HasSubstr("little-endian"));
  files.erase(files.begin() + 1);  // torch wrote none before 2.1
  EXPECT_EQ(complaint_of(test::zip(files)), "accepted");
}

TEST(TorchFileRefusals, NothingButTensorsMayBeNamed) {
  const auto called = [](const std::string& module, const std::string& name) {
    return complaint(
        pk::whole(pk::dict({{"t", pk::call(pk::global(module, name), {pk::text("true")})}})));
  };
  for (const auto& [module, name] :
       std::vector<std::pair<std::string, std::string>>{{"os", "system"},
                                                        {"posix", "system"},
                                                        {"builtins", "eval"},
                                                        {"__builtin__", "eval"},
                                                        {"builtins", "getattr"},
                                                        {"torch", "load"},
                                                        {"torch.storage", "_load_from_bytes"},
                                                        {"torch._utils", "_rebuild_sparse_tensor"},
                                                        {"torch._utils", "_rebuild_qtensor"},
                                                        {"torch", "ComplexFloatStorage"},
                                                        {"torch.FloatStorage", "x"},
                                                        {"", ""}})
    EXPECT_THAT(called(module, name), AllOf(HasSubstr("names " + module + "." + name + ","),
                                            HasSubstr("nothing of it was run")));
  // One that is never called, and one whose name stands in texts.
  EXPECT_THAT(complaint(pk::whole(pk::global("os", "system") + pk::dict({}))),
              HasSubstr("os.system"));
  EXPECT_THAT(complaint("\x80\x04" + pk::text("os") + pk::text("system") + "\x93."),
              HasSubstr("os.system"));
}

TEST(TorchFileRefusals, KnownNamesAreNoFunctions) {
  const auto value = [](const std::string& pickled) {
    return complaint(pk::whole(pk::dict({{"t", pickled}})));
  };
  EXPECT_THAT(value(pk::call(pk::global("torch", "float16"), {})),
              HasSubstr("made by torch.float16"));
  EXPECT_THAT(value(pk::call(pk::global("torch", "FloatStorage"), {pk::integer(3)})),
              HasSubstr("made by torch.FloatStorage"));
  EXPECT_THAT(value(pk::call(pk::global("collections", "OrderedDict"), {pk::list({})})),
              HasSubstr("OrderedDict from arguments"));
  EXPECT_THAT(value(pk::text("os.system") + pk::tuple({}) + "R"), HasSubstr("no function"));
  EXPECT_THAT(value(pk::global("torch", "Size") + pk::integer(1) + "R"), HasSubstr("no function"));
}

TEST(TorchFileRefusals, OpcodesThatMakeObjectsAreRefused) {
  const std::string size = pk::global("torch", "Size");
  const auto says = [](const std::string& opcodes) { return complaint(pk::whole(opcodes)); };
  EXPECT_THAT(says("(ios\nsystem\n"), HasSubstr("INST"));
  EXPECT_THAT(says("(" + size + "o"), HasSubstr("OBJ (0x6f)"));
  EXPECT_THAT(says(size + ")\x81"), HasSubstr("NEWOBJ (0x81)"));
  EXPECT_THAT(says(size + ")}\x92"), HasSubstr("NEWOBJ_EX"));
  EXPECT_THAT(says("\x82\x01"), HasSubstr("EXT1"));
  EXPECT_THAT(says("\x83\x01\x01"), HasSubstr("EXT2"));
  EXPECT_THAT(says("\x84\x01\x01\x01\x01"), HasSubstr("EXT4"));
  EXPECT_THAT(says("Pstorage\n"), HasSubstr("PERSID"));
  EXPECT_THAT(says("\x8f"), HasSubstr("EMPTY_SET"));
  EXPECT_THAT(says("I1\n"), HasSubstr("0x49"));
  EXPECT_THAT(says("\x80\x02}"), HasSubstr("opcode"));
  EXPECT_THAT(says(size + "}b"), HasSubstr("BUILD"));
  EXPECT_THAT(says("]}b"), HasSubstr("BUILD"));
  EXPECT_THAT(complaint("\x80\x01}."), HasSubstr("protocol 2 to 5"));
  EXPECT_THAT(complaint("\x80\x06}."), HasSubstr("protocol 2 to 5"));
  EXPECT_THAT(complaint("}."), HasSubstr("begin with its protocol"));
}

TEST(TorchFileRefusals, OpcodesMayNotTakeWhatIsNotThere) {
  for (const std::string opcodes : {"",
                                    "t",
                                    "\x85",
                                    "N\x86",
                                    "(\x85",
                                    "N(\x85",
                                    "u",
                                    "(u",
                                    "s",
                                    "}Ns",
                                    "}(Nu",
                                    "](",
                                    "]((e",
                                    "a",
                                    "N(a",
                                    "R",
                                    "Q",
                                    "b",
                                    "q",
                                    "q\x01",
                                    "h\x01",
                                    "\x94",
                                    "\x93",
                                    "NN\x93",
                                    "]NNs",
                                    "}Na",
                                    "NNa",
                                    "}NN(u",
                                    "cos",
                                    "cos\nsystem",
                                    "G\x01",
                                    "X\xff\xff\xff\xff"
                                    "abc",
                                    "J\x01",
                                    "\x8a\xff"
                                    "a",
                                    "X\x01"})
    EXPECT_THAT(complaint("\x80\x02" + opcodes + "."), HasSubstr("the pickle ")) << opcodes;
  EXPECT_THAT(complaint(pk::whole(pk::dict({{"\xff", pk::kNone}}))), HasSubstr("UTF-8"));
}

TEST(TorchFileRefusals, TheRootMustBeADictWithNamesAsKeys) {
  EXPECT_THAT(complaint(pk::whole(pk::list({kLetters}))), HasSubstr("must hold a dict"));
  EXPECT_THAT(complaint(pk::whole(kLetters)), HasSubstr("must hold a dict"));
  EXPECT_THAT(complaint(pk::whole("}" + pk::tuple({}) + kLetters + "s")), HasSubstr("keys"));
}

TEST(TorchFileRefusals, NamesThatBecomeAlikeAreRefused) {
  EXPECT_THAT(
      complaint(pk::whole(pk::dict({{"a.b", kLetters}, {"a", pk::dict({{"b", kLetters}})}}))),
      AllOf(HasSubstr("a.b"), HasSubstr("twice")));
}

TEST(TorchFileRefusals, NestingIsLimited) {
  const auto nested = [](int depth) {
    std::string begin, end;
    for (int i = 0; i < depth; ++i) begin += "}(" + pk::text("d"), end += "u";
    return complaint(pk::whole(begin + kLetters + end));
  };
  EXPECT_EQ(nested(60), "accepted");
  EXPECT_THAT(nested(70), HasSubstr("must lie in at most 64 dicts"));
  EXPECT_THAT(nested(100'000), HasSubstr("must nest at most 200 deep"));
  std::string tuples = ")";
  for (int i = 0; i < 100'000; ++i) tuples += "\x85";
  EXPECT_THAT(complaint(pk::whole(pk::dict({{"t", tuples}}))), HasSubstr("at most 64 dicts"));
  EXPECT_THAT(complaint(pk::whole(pk::dict({{std::string(2000, 'n'), kLetters}}))),
              HasSubstr("at most 1000 bytes"));
}

TEST(TorchFileRefusals, ADictWithinItselfIsRefused) {
  const std::string remembered = "}q" + std::string(1, '\0');
  EXPECT_THAT(complaint(pk::whole(remembered + pk::text("d") + "h" + std::string(1, '\0') + "s")),
              HasSubstr("at most 64 dicts"));
}

TEST(TorchFileRefusals, ListsThatMultiplyAreRefused) {
  // Each list holds the one before it twice: 2^40 dicts in a few hundred bytes.
  std::string doubled = pk::dict({});
  for (int i = 0; i < 40; ++i) {
    const std::string place = test::little_endian(static_cast<uint64_t>(i), 1);
    doubled = "](" + doubled + "q" + place + "h" + place + "e";
  }
  EXPECT_THAT(complaint(pk::whole(pk::dict({{"d", doubled}}))), HasSubstr("too many"));
}

TEST(TorchFileRefusals, ATensorThatLiesIsRefusedByItsName) {
  const auto says = [](int64_t offset, const std::vector<int64_t>& sizes,
                       const std::vector<int64_t>& strides) {
    return complaint(letters(offset, sizes, strides));
  };
  const int64_t big = int64_t{1} << 48, huge = std::numeric_limits<int64_t>::max();
  for (const std::string& message :
       {says(0, {7}, {1}), says(1, {6}, {1}), says(6, {1}, {1}), says(0, {2, 3}, {4, 1}),
        says(0, {4}, {2}), says(huge, {1}, {1}), says(0, {2, 2}, {huge, huge}),
        says(0, {3}, {huge})})
    EXPECT_THAT(message, AllOf(HasSubstr(": t"), HasSubstr("out of its storage")));
  EXPECT_THAT(says(-1, {1}, {1}), HasSubstr("no negative"));
  EXPECT_THAT(says(0, {-1}, {1}), HasSubstr("no negative"));
  EXPECT_THAT(says(0, {2}, {-1}), HasSubstr("no negative"));
  EXPECT_THAT(says(0, {2, 3}, {1}), HasSubstr("as many strides as sizes"));
  EXPECT_THAT(says(0, std::vector<int64_t>(17, 1), std::vector<int64_t>(17, 1)),
              HasSubstr("at most 16"));
  EXPECT_THAT(says(0, {big, big}, {0, 0}), HasSubstr("2^56"));
  EXPECT_THAT(says(0, {0, big, big}, {0, 0, 0}), HasSubstr("2^56"));
  EXPECT_THAT(says(0, {huge, huge}, {1, 1}), HasSubstr("2^56"));
  EXPECT_THAT(says(0, {7}, {0}), HasSubstr("must not repeat"));
  EXPECT_THAT(says(0, {big}, {0}), HasSubstr("must not repeat"));
}

TEST(TorchFileRefusals, CopiesAreBoundedByTheFilesSize) {
  pk::Items items;
  for (int i = 0; i < 400; ++i) items.emplace_back(fmt::format("t{}", i), std::string{'h', '\0'});
  const std::string turned =
      pk::tensor(pk::storage("ByteStorage", "0", 100'000), 0, {250, 400}, {1, 250});
  items.front().second = turned + "q" + std::string(1, '\0');
  EXPECT_THAT(
      complaint_of(test::torch_file(pk::whole(pk::dict(items)), {std::string(100'000, 'x')})),
      HasSubstr("must not repeat"));
}

TEST(TorchFileRefusals, AStorageThatLiesIsRefused) {
  const auto says = [](const std::string& storage) {
    return complaint(pk::whole(pk::dict({{"t", pk::tensor(storage, 0, {1}, {1})}})));
  };
  EXPECT_EQ(says(pk::storage("ByteStorage", "0", 6)), "accepted");
  EXPECT_THAT(says(pk::storage("ByteStorage", "0", 7)), HasSubstr("7 elements of U8"));
  EXPECT_THAT(says(pk::storage("ByteStorage", "0", -1)), HasSubstr("-1 elements"));
  EXPECT_THAT(says(pk::storage("ByteStorage", "0", std::numeric_limits<int64_t>::max())),
              HasSubstr("elements of U8"));
  EXPECT_THAT(says(pk::storage("FloatStorage", "0", 1)), HasSubstr("which has 6 bytes"));
  EXPECT_THAT(says(pk::storage("ByteStorage", "1", 6)), HasSubstr("archive/data/1"));
  EXPECT_THAT(says(pk::storage("ByteStorage", "../data.pkl", 6)), HasSubstr("lacks"));
  EXPECT_THAT(says(pk::storage("UntypedStorage", "0", 6)), HasSubstr("typed storage"));
  EXPECT_THAT(says(pk::text("storage") + "Q"), HasSubstr("as torch.save names it"));
  EXPECT_THAT(says(pk::tuple({}) + "Q"), HasSubstr("as torch.save names it"));
  EXPECT_THAT(says(pk::kNone), HasSubstr("made from a storage"));
  EXPECT_THAT(complaint(pk::whole(pk::dict({{"t", pk::storage("ByteStorage", "0", 6)}}))),
              HasSubstr("is a storage"));
}

}  // namespace
}  // namespace qlora::io
