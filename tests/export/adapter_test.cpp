// The adapter export: what comes back from the directory, and what it does to a directory that is
// there already.
#include "export/adapter.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "tests/support/tiny_model.h"

namespace qlora::exporting {
namespace {
namespace fs = std::filesystem;
using test::TempDir;

struct TinyAdapter {
  TempDir dir;
  std::unique_ptr<model::CausalLm> model = test::tiny_model();
  std::unique_ptr<lora::AdapterSet> adapters = test::tiny_adapters(*model, true);
  lora::LoraOptions options;
  lora::AdapterBase base{"tiny/base", "somewhere", {}, "bfloat16", "0123"};
  std::unique_ptr<data::Tokenizer> tokenizer;

  TinyAdapter() {
    options.rank = 4;
    options.alpha = 8;
    options.dropout = 0.25;
    test::write_tiny_directory(dir / "model");
    tokenizer = data::load_tokenizer(dir / "model");
  }
  void write(const std::string& directory) {
    write_adapter_directory(directory, *adapters, options, base, *tokenizer);
  }
  // Of the test's own directory: no partial one may be among them.
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& entry : fs::directory_iterator(dir.path()))
      all.push_back(entry.path().filename());
    std::sort(all.begin(), all.end());
    return all;
  }
};

TEST(AdapterExport, GivesBackTheTrainedTensorsExactly) {
  TinyAdapter trained;
  trained.write(trained.dir / "adapter");
  const auto model = test::tiny_model();
  const auto reloaded = test::tiny_adapters(*model, false);
  ASSERT_FALSE(at::equal(reloaded->values(), trained.adapters->values()));
  lora::read_adapter_tensors(trained.dir / "adapter", *reloaded);
  EXPECT_TRUE(at::equal(reloaded->values(), trained.adapters->values()));
}

TEST(AdapterExport, GivesBackOptionsAndBase) {
  TinyAdapter trained;
  trained.base.quantization.method = "nf4";
  trained.base.quantization.block_size = 32;
  trained.write(trained.dir / "adapter");
  const lora::LoraOptions options = lora::read_adapter_options(trained.dir / "adapter");
  EXPECT_EQ(options.rank, 4);
  EXPECT_EQ(options.alpha, 8);
  EXPECT_EQ(options.dropout, 0.25);
  EXPECT_EQ(options.scaling(), 2.0);
  const auto base = lora::read_adapter_base(trained.dir / "adapter");
  ASSERT_TRUE(base.has_value());
  EXPECT_EQ(base->name, "tiny/base");
  EXPECT_EQ(base->hash, "0123");
  EXPECT_EQ(base->quantization.block_size, 32);
}

TEST(AdapterExport, ADirectoryOfSomethingElseIsRefusedAndLeftAsItWas) {
  TinyAdapter trained;
  trained.dir.write("adapter/thesis.txt", "precious");
  EXPECT_THROW(trained.write(trained.dir / "adapter"), ConfigError);
  EXPECT_EQ(test::read_file(trained.dir / "adapter/thesis.txt"), "precious");
  EXPECT_FALSE(fs::exists(trained.dir / "adapter/adapter_config.json"));
  EXPECT_EQ(trained.names(), (std::vector<std::string>{"adapter", "model"}));
}

TEST(AdapterExport, AnEarlierAdapterIsReplacedWhole) {
  TinyAdapter trained;
  trained.write(trained.dir / "adapter");
  trained.dir.write("adapter/left_from_before.txt", "old");
  at::Tensor values = trained.adapters->values();
  values.add_(1.0);
  trained.write(trained.dir / "adapter");
  EXPECT_FALSE(fs::exists(trained.dir / "adapter/left_from_before.txt"));
  EXPECT_EQ(trained.names(), (std::vector<std::string>{"adapter", "model"}));
  const auto model = test::tiny_model();
  const auto reloaded = test::tiny_adapters(*model, false);
  lora::read_adapter_tensors(trained.dir / "adapter", *reloaded);
  EXPECT_TRUE(at::equal(reloaded->values(), trained.adapters->values()));
}

}  // namespace
}  // namespace qlora::exporting
