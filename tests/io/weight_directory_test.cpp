#include "io/weight_directory.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "io/safetensors.h"
#include "tests/support/temp_dir.h"
#include "tests/support/torch_writer.h"

namespace qlora::io {
namespace {

using test::TempDir;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::string text_of(const TensorView& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()};
}

// A file of one tensor, of which every element is the letter.
void write_safetensors(const TempDir& dir, const std::string& file, const std::string& tensor,
                       const std::string& letter) {
  SafetensorsWriter writer(dir / file, {{tensor, DType::kU8, {1}}});
  writer.write(tensor, bytes_of(letter));
  writer.finish();
}
void write_torch_file(const TempDir& dir, const std::string& file, const std::string& tensor,
                      const std::string& letter) {
  namespace pk = test::pickle;
  const std::string value = pk::tensor(pk::storage("ByteStorage", "0", 1), 0, {1}, {1});
  dir.write(file, test::torch_file(pk::whole(pk::dict({{tensor, value}})), {letter}));
}

// The same of numbers of 16 bits.
void write_half_safetensors(const TempDir& dir, const std::string& file, const std::string& tensor,
                            const std::string& letters) {
  SafetensorsWriter writer(dir / file, {{tensor, DType::kF16, {1}}});
  writer.write(tensor, bytes_of(letters));
  writer.finish();
}
void write_half_torch_file(const TempDir& dir, const std::string& file, const std::string& tensor,
                           const std::string& letters, const char* storage = "HalfStorage") {
  namespace pk = test::pickle;
  const std::string value = pk::tensor(pk::storage(storage, "0", 1), 0, {1}, {1});
  dir.write(file, test::torch_file(pk::whole(pk::dict({{tensor, value}})), {letters}));
}

// The letter of the tensor "t", or what the reader says.
std::string letter_of(const TempDir& dir) {
  try {
    return text_of(*read_weight_directory(dir.path()).find("t"));
  } catch (const FormatError& error) {
    return error.what();
  }
}

void small_file(const TempDir& dir) {
  SafetensorsWriter writer(dir / "small.safetensors",
                           {{"a", DType::kU8, {2, 3}}, {"b", DType::kBF16, {1}}});
  writer.write("a", bytes_of("abcdef"));
  writer.write("b", bytes_of("xy"));
  writer.finish();
}

TEST(WeightDirectory, FilesAreLookedForInTheOrderOfTransformers) {
  TempDir dir;
  const auto index = [&](const std::string& file, const std::string& shard) {
    dir.write(file, R"({"weight_map":{"t":")" + shard + "\"}}");
  };
  EXPECT_FALSE(holds_weights(dir.path()));
  EXPECT_EQ(weights_file(dir.path()), "");
  write_torch_file(dir, "qmodel.pt", "t", "q");
  EXPECT_EQ(letter_of(dir), "q");
  EXPECT_EQ(weights_file(dir.path()), "qmodel.pt");
  write_safetensors(dir, "own-name.safetensors", "t", "g");
  EXPECT_EQ(letter_of(dir), "q");
  dir.write("quantize_config.json", R"({"bits":4,"group_size":128})");
  EXPECT_EQ(letter_of(dir), "g");
  write_torch_file(dir, "pytorch_model-00001-of-00001.bin", "t", "s");
  index("pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin");
  EXPECT_EQ(letter_of(dir), "s");
  EXPECT_EQ(weights_file(dir.path()), "pytorch_model.bin.index.json");
  write_torch_file(dir, "pytorch_model.bin", "t", "p");
  EXPECT_EQ(letter_of(dir), "p");
  write_safetensors(dir, "model-00001-of-00001.safetensors", "t", "i");
  index("model.safetensors.index.json", "model-00001-of-00001.safetensors");
  EXPECT_EQ(letter_of(dir), "i");
  write_safetensors(dir, "model.safetensors", "t", "m");
  EXPECT_EQ(letter_of(dir), "m");
}

TEST(WeightDirectory, TorchsFilesBesideSafetensorsAreNamedWhereTheyHoldOtherWeights) {
  const auto said = [](const std::string& letter, const std::string& tensor, bool in_shards) {
    TempDir dir;
    write_half_safetensors(dir, "model.safetensors", "t", "aa");
    if (in_shards) {
      const std::string shard = "pytorch_model-00001-of-00002.bin";  // the second is not there
      write_half_torch_file(dir, shard, tensor, letter);
      dir.write(
          "pytorch_model.bin.index.json",
          R"({"weight_map":{"t":")" + shard + R"(","u":"pytorch_model-00002-of-00002.bin"}})");
    } else {
      write_half_torch_file(dir, "pytorch_model.bin", tensor, letter);
    }
    testing::internal::CaptureStderr();
    EXPECT_EQ(letter_of(dir), "aa");
    return testing::internal::GetCapturedStderr();
  };
  for (const bool in_shards : {false, true}) {
    EXPECT_EQ(said("aa", "t", in_shards), "");
    EXPECT_EQ(said("bb", "masked_bias", in_shards), "");  // a buffer that safetensors leaves out
    EXPECT_THAT(said("bb", "t", in_shards),
                AllOf(HasSubstr("model.safetensors and "), HasSubstr("pytorch_model"),
                      HasSubstr("hold other weights, t for one")));
  }
  TempDir dir;
  write_safetensors(dir, "model.safetensors", "t", "a");
  dir.write("pytorch_model.bin", "no file of torch.save");
  EXPECT_EQ(letter_of(dir), "a");
}

// As older versions of transformers saved them, or whoever converted the weights to another dtype.
TEST(WeightDirectory, BuffersAndOtherDtypesInTorchsFilesAreNoOtherWeights) {
  const auto said = [](const std::string& tensor, const char* storage) {
    TempDir dir;
    write_half_safetensors(dir, "model.safetensors", tensor, "aa");
    write_half_torch_file(dir, "pytorch_model.bin", tensor, "bb", storage);
    testing::internal::CaptureStderr();
    read_weight_directory(dir.path());
    return testing::internal::GetCapturedStderr();
  };
  for (const char* buffer : {"layers.0.self_attn.rotary_emb.inv_freq", "h.0.attn.bias",
                             "h.0.attn.masked_bias", "layers.0.attention.bias"})
    EXPECT_EQ(said(buffer, "HalfStorage"), "") << buffer;
  EXPECT_EQ(said("h.0.attn.weight", "BFloat16Storage"), "");
  EXPECT_THAT(said("h.0.attn.c_attn.bias", "HalfStorage"), HasSubstr("hold other weights"));
}

TEST(WeightDirectory, OneFileIsReadByItsEnding) {
  TempDir dir;
  write_torch_file(dir, "mine.bin", "t", "b");
  write_safetensors(dir, "mine.safetensors", "t", "s");
  write_safetensors(dir, "model.safetensors", "t", "d");
  EXPECT_EQ(text_of(read_weights(dir / "mine.bin").at("t")), "b");
  EXPECT_EQ(text_of(read_weights(dir / "mine.safetensors").at("t")), "s");
  EXPECT_EQ(text_of(read_weights(dir.path()).at("t")), "d");
  EXPECT_THROW(read_weights(dir / "none.safetensors"), IoError);
}

TEST(WeightDirectory, ATensorThatMustBeThereIsMissedByName) {
  TempDir dir;
  write_safetensors(dir, "model.safetensors", "t", "d");
  const TensorFile file = read_weights(dir.path());
  EXPECT_THAT([&] { file.at("u"); }, testing::ThrowsMessage<FormatError>(AllOf(
                                         HasSubstr("model.safetensors"), HasSubstr("a tensor u"))));
  EXPECT_THROW(TensorFile().at("u"), FormatError);
}

TEST(WeightDirectory, TensorsOfTorchsShardsAreFoundByTheirIndex) {
  TempDir dir;
  write_torch_file(dir, "pytorch_model-00001-of-00002.bin", "a", "x");
  write_torch_file(dir, "pytorch_model-00002-of-00002.bin", "b", "y");
  dir.write("pytorch_model.bin.index.json", R"({"metadata":{"total_size":2},"weight_map":{
      "a":"pytorch_model-00001-of-00002.bin","b":"pytorch_model-00002-of-00002.bin"}})");
  const TensorFile file = read_weight_directory(dir.path());
  ASSERT_EQ(file.tensors.size(), 2u);
  EXPECT_EQ(text_of(*file.find("a")), "x");
  EXPECT_EQ(text_of(*file.find("b")), "y");
  EXPECT_EQ(file.find("b")->file, dir / "pytorch_model-00002-of-00002.bin");
  std::filesystem::remove(dir / "pytorch_model-00002-of-00002.bin");
  EXPECT_THAT(letter_of(dir), HasSubstr("pytorch_model-00002-of-00002.bin: the shard is missing"));
}

TEST(WeightDirectory, AutoGptqsNamesAreTakenFromItsConfiguration) {
  const auto says = [](const std::string& config, const std::vector<std::string>& files) {
    TempDir dir;
    if (!config.empty()) dir.write("quantize_config.json", config);
    std::string letter = "0";
    for (const std::string& file : files) {
      file.ends_with(".safetensors") ? write_safetensors(dir, file, "t", letter)
                                     : write_torch_file(dir, file, "t", letter);
      ++letter[0];
    }
    return letter_of(dir);
  };
  const std::string by_bits = "gptq_model-4bit-128g", four = R"({"bits":4,"group_size":128})";
  EXPECT_EQ(says(four, {"other.safetensors", by_bits + ".safetensors"}), "1");
  EXPECT_EQ(says(four, {"gptq_model-3bit-128g.safetensors", by_bits + ".bin"}), "1");
  EXPECT_EQ(says(four, {by_bits + ".pt"}), "0");
  EXPECT_EQ(says(R"({"bits":3,"group_size":-1})", {"gptq_model-3bit--1g.bin"}), "0");
  EXPECT_EQ(says(R"({"bits":4,"group_size":128,"model_file_base_name":"mine"})",
                 {by_bits + ".safetensors", "mine.safetensors"}),
            "1");
  EXPECT_EQ(says(R"({"bits":4,"model_file_base_name":null})", {"only.safetensors"}), "0");
  EXPECT_THAT(says(four, {"one.safetensors", "two.safetensors"}),
              HasSubstr("there is one.safetensors"));
  EXPECT_THAT(says(four, {"model-00001-of-00002.safetensors"}), HasSubstr("without the index"));
  EXPECT_THAT(says("", {by_bits + ".safetensors"}), HasSubstr("must hold model.safetensors"));
  EXPECT_THAT(says(R"({"model_file_base_name":"../x"})", {}), HasSubstr("plain file name"));
}

TEST(WeightDirectory, PartsOfWeightsCountAsWeights) {
  for (const std::string name :
       {"model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json",
        "pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json",
        "qmodel.pt"}) {
    TempDir dir;
    dir.write(name, "");
    EXPECT_TRUE(holds_weights(dir.path())) << name;
  }
  TempDir dir;
  for (const std::string name : {"training_args.bin", "config.json", "tokenizer.model", "m.gguf"})
    dir.write(name, "");
  EXPECT_FALSE(holds_weights(dir.path()));
}

TEST(WeightDirectory, ReadsEachTensorFromTheShardOfTheIndex) {
  TempDir dir;
  for (const std::string shard : {"one", "two"}) {
    SafetensorsWriter writer(dir / (shard + ".safetensors"), {{shard + ".b", DType::kU8, {1}},
                                                              {shard + ".a", DType::kU8, {1}},
                                                              {"unlisted", DType::kU8, {1}}});
    writer.write(shard + ".b", bytes_of("b"));
    writer.write(shard + ".a", bytes_of("a"));
    writer.write("unlisted", bytes_of("u"));
    writer.finish();
  }
  dir.write("model.safetensors.index.json", R"({"metadata":{"total_size":4},"weight_map":{
      "one.a":"one.safetensors","one.b":"one.safetensors",
      "two.a":"two.safetensors","two.b":"two.safetensors"}})");
  const TensorFile file = read_weight_directory(dir.path());
  std::vector<std::string> names;
  for (const TensorView& tensor : file.tensors) names.push_back(tensor.name);
  // As transformers, which reads whole shards, whatever the index leaves out.
  EXPECT_THAT(names, ElementsAre("one.b", "one.a", "two.b", "two.a", "unlisted"));
  EXPECT_EQ(file.find("two.a")->file, dir / "two.safetensors");
  EXPECT_EQ(file.find("unlisted")->file, dir / "one.safetensors");
  EXPECT_EQ(file.find("three.a"), nullptr);
}

// As in transformers, which reads the shards in the order of their names.
TEST(WeightDirectory, OfTensorsOfOneNameInTwoShardsThatOfTheLastIsTaken) {
  for (const std::string listed : {"1", "2"}) {
    TempDir dir;
    for (const std::string shard : {"1", "2"}) {
      SafetensorsWriter writer(dir / (shard + ".safetensors"),
                               {{"t", DType::kU8, {1}}, {"own." + shard, DType::kU8, {1}}});
      writer.write("t", bytes_of(shard));
      writer.write("own." + shard, bytes_of("o"));
      writer.finish();
    }
    dir.write("model.safetensors.index.json",
              R"({"weight_map":{"own.1":"1.safetensors","own.2":"2.safetensors","t":")" + listed +
                  R"(.safetensors"}})");
    testing::internal::CaptureStderr();
    const TensorFile file = read_weight_directory(dir.path());
    EXPECT_THAT(testing::internal::GetCapturedStderr(),
                AllOf(HasSubstr("1.safetensors and "), HasSubstr("2.safetensors hold tensors t"),
                      HasSubstr("that of the latter is used")))
        << listed;
    EXPECT_EQ(text_of(file.at("t")), "2") << listed;
    EXPECT_EQ(file.at("t").file, dir / "2.safetensors") << listed;
    EXPECT_EQ(file.tensors.size(), 3u) << listed;
  }
}

TEST(WeightDirectory, AnAdapterBesideTheWeightsIsNamed) {
  TempDir dir;
  write_safetensors(dir, "model.safetensors", "t", "m");
  testing::internal::CaptureStderr();
  read_weight_directory(dir.path());
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  dir.write("adapter_config.json", "{}");
  testing::internal::CaptureStderr();
  EXPECT_EQ(letter_of(dir), "m");
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              AllOf(HasSubstr(dir.path()), HasSubstr("adapter_config.json lies beside")));
}

TEST(WeightDirectory, TheSingleFileGoesBeforeAnIndexThatIsLeftOver) {
  TempDir dir;
  small_file(dir);
  std::filesystem::rename(dir / "small.safetensors", dir / "model.safetensors");
  dir.write("model.safetensors.index.json", R"({"weight_map":{"z":"gone.safetensors"}})");
  testing::internal::CaptureStderr();
  const TensorFile file = read_weight_directory(dir.path());
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              AllOf(HasSubstr("model.safetensors is read"),
                    HasSubstr("model.safetensors.index.json"), HasSubstr("left aside")));
  EXPECT_EQ(file.tensors.size(), 2u);
}

TEST(WeightDirectory, WeightsOfAnotherKindAreNamedWithWhatToDo) {
  const auto says = [](const std::string& file) -> std::string {
    TempDir dir;
    dir.write(file, "bytes");
    try {
      read_weight_directory(dir.path());
    } catch (const FormatError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_THAT(says("consolidated.00.pth"),
              AllOf(HasSubstr("consolidated.00.pth"), HasSubstr("save_pretrained")));
  EXPECT_THAT(says("m.gguf"), HasSubstr("give that file"));
  EXPECT_THAT(says("adapter_config.json"), HasSubstr("--adapter"));
  EXPECT_THAT(says("model-00001-of-00002.safetensors"), HasSubstr("model.safetensors.index.json"));
  EXPECT_THAT(says("pytorch_model-00001-of-00002.bin"),
              HasSubstr("download pytorch_model.bin.index.json"));
  EXPECT_THAT(says("model.safetensors.part"), HasSubstr("a download that did not end"));
  for (const char* name : {"model.onnx", "last.ckpt", "weights.npz"})
    EXPECT_THAT(says(name),
                AllOf(HasSubstr(fmt::format("there is {},", name)), HasSubstr("are not read")));
  EXPECT_THAT(says("readme"), HasSubstr("there are no weights"));
}

TEST(WeightDirectory, ReadsTheSingleFileWhereThereIsNoIndex) {
  TempDir dir;
  small_file(dir);
  std::filesystem::rename(dir / "small.safetensors", dir / "model.safetensors");
  EXPECT_EQ(read_weight_directory(dir.path()).tensors.size(), 2u);
  std::filesystem::remove(dir / "model.safetensors");
  EXPECT_THROW(read_weight_directory(dir.path()), FormatError);
}

TEST(WeightDirectory, AnIndexMayNotLeadOutOfItsDirectory) {
  TempDir dir;
  small_file(dir);
  std::filesystem::create_directory(dir / "inner");
  for (const std::string name : {"../small.safetensors", "..", ".", "", "/etc/passwd", "a/b",
                                 "..\\\\small", "small.safetensors\\u0000"}) {
    dir.write("inner/model.safetensors.index.json", R"({"weight_map":{"a":")" + name + "\"}}");
    try {
      read_weight_directory(dir / "inner");
      FAIL() << name;
    } catch (const FormatError& error) {
      EXPECT_THAT(error.what(), HasSubstr("plain file name")) << name;
    }
  }
}

TEST(WeightDirectory, AMissingShardOrTensorIsNamed) {
  TempDir dir;
  small_file(dir);
  const auto says = [&](const std::string& map) -> std::string {
    dir.write("model.safetensors.index.json", R"({"weight_map":)" + map + "}");
    try {
      read_weight_directory(dir.path());
    } catch (const FormatError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_THAT(says(R"({"a":"gone.safetensors"})"), HasSubstr("gone.safetensors: the shard"));
  EXPECT_THAT(says(R"({"z":"small.safetensors"})"), HasSubstr("a tensor z"));
  EXPECT_THAT(says("[]"), HasSubstr("weight_map must be an object"));
  EXPECT_EQ(says(R"({"a":"small.safetensors"})"), "accepted");
}

}  // namespace
}  // namespace qlora::io
