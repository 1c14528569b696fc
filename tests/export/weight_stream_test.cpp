#include "export/weight_stream.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "base/error.h"
#include "export/quantized.h"
#include "io/safetensors.h"
#include "model/base_hash.h"
#include "model/load.h"
#include "recipes/exports/quantize_model.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::exporting {
namespace {
namespace fs = std::filesystem;

// Every file of a directory by its name.
std::map<std::string, std::string> files_in(const std::string& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(directory)) {
    std::stringstream bytes;
    bytes << std::ifstream(entry.path(), std::ios::binary).rdbuf();
    files[entry.path().filename()] = bytes.str();
  }
  return files;
}

std::vector<WeightPart> some_parts() {
  std::vector<WeightPart> parts;
  for (int i = 0; i < 9; ++i) {
    const at::Tensor value = at::randn({3 + i, 5});
    parts.push_back({fmt::format("weight.{}", i), value.sizes().vec(),
                     i % 2 == 0 ? at::kBFloat16 : at::kFloat, [value] { return value; }});
  }
  return parts;
}

TEST(WeightStream, WritesTheFilesThatAreWrittenWhereSizesAreKnown) {
  const auto parts = some_parts();
  for (const int64_t shard_bytes : {1, 200, 500, 1'000'000}) {
    const test::TempDir known, streamed;
    write_weight_files(known.path(), parts, "a test", shard_bytes);
    WeightStream stream(streamed.path(), "a test", shard_bytes);
    for (const WeightPart& part : parts) stream.add(part.name, part.make(), part.dtype);
    stream.finish();
    EXPECT_EQ(files_in(streamed.path()), files_in(known.path())) << shard_bytes;
  }
}

TEST(WeightStream, LeavesNoScratchFileWhereATensorIsRefused) {
  const test::TempDir dir;
  {
    WeightStream stream(dir.path(), "a test");
    stream.add("a", at::zeros({4}), at::kFloat);
    EXPECT_THROW(stream.add("b", at::full({4}, 1e10), at::kHalf), Error);
  }
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

class Streamed : public ::testing::Test {
 protected:
  Streamed() {
    test::write_tiny_directory(dir_ / "directory");
    test::write_tiny_gguf(dir_ / "file.gguf");
  }
  const test::TempDir dir_;
};

TEST_F(Streamed, TheQuantizedDirectoryIsThatOfTheWholeModel) {
  for (const std::string source : {"directory", "file.gguf"})
    for (const char* method : {"nf4", "int8"}) {
      recipes::QuantizeOptions options;
      options.model = dir_ / source;
      options.output = dir_ / "streamed";
      options.quantization.method = method;
      options.quantization.skip_modules = {"lm_head", "k_proj"};
      fs::remove_all(options.output);
      const auto report = recipes::quantize_model(options);

      const auto weights = model::open_weights(options.model);
      const auto whole =
          model::load_model(*weights, {}, options.quantization, at::kCPU, at::kBFloat16);
      const auto tokenizer = data::load_tokenizer(options.model);
      const test::TempDir written;
      write_quantized(written.path(), *whole, options.quantization, *tokenizer, options.model,
                      weights->dtype());
      EXPECT_EQ(files_in(options.output), files_in(written.path())) << source << " " << method;
      EXPECT_EQ(report.base_hash, whole->base_hash());
    }
}

TEST_F(Streamed, PartsAreTheFrozenStateInItsOrder) {
  const auto whole_source = model::open_weights(dir_ / "directory");
  const auto whole = model::load_model(*whole_source, {}, {}, at::kCPU, at::kBFloat16);
  const quant::NamedTensors expected = whole->frozen_state();
  size_t next = 0;
  int64_t layers = 0;
  const auto source = model::open_weights(dir_ / "directory");
  const auto config =
      model::stream_model(*source, {}, {}, at::kCPU, {}, [&](const model::StreamedPart& part) {
        layers += part.groups.empty() ? 0 : 1;
        for (const auto& [name, tensor] : part.tensors) {
          ASSERT_LT(next, expected.size());
          EXPECT_EQ(name, expected[next].first);
          EXPECT_TRUE(at::equal(tensor, expected[next].second)) << name;
          ++next;
        }
      });
  EXPECT_EQ(next, expected.size());
  EXPECT_EQ(layers, config.num_layers());
}

}  // namespace
}  // namespace qlora::exporting
