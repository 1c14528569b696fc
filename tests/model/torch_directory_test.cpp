// Directories whose weights torch.save wrote.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/safetensors.h"
#include "model/model_header.h"
#include "recipes/exports/export_model.h"
#include "recipes/models/trained_model.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "tests/support/torch_writer.h"

namespace qlora::model {
namespace {
namespace fs = std::filesystem;
namespace pk = test::pickle;
using test::TempDir;

// A file of these tensors, of bfloat16: those with an odd number transposed in their storage.
void write_torch_file(const std::string& path, const std::vector<io::TensorView>& tensors) {
  pk::Items items;
  std::vector<std::string> storages;
  for (const io::TensorView& tensor : tensors) {
    std::string bytes(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
    const std::string key = std::to_string(storages.size());
    const std::string storage = pk::storage("BFloat16Storage", key, tensor.num_elements());
    const std::vector<int64_t>& shape = tensor.shape;
    std::vector<int64_t> strides = {1};
    if (shape.size() == 2 && storages.size() % 2 == 1) {
      std::string turned;
      for (int64_t j = 0; j < shape[1]; ++j)
        for (int64_t i = 0; i < shape[0]; ++i)
          turned += bytes.substr(static_cast<size_t>(2 * (i * shape[1] + j)), 2);
      bytes = turned;
      strides = {1, shape[0]};
    } else if (shape.size() == 2) {
      strides = {shape[1], 1};
    }
    items.emplace_back(tensor.name, pk::tensor(storage, 0, shape, strides));
    storages.push_back(bytes);
  }
  std::ofstream(path, std::ios::binary)
      << test::torch_file(pk::whole(pk::dict(items, pk::ordered_dict())), storages);
}

// The tiny model twice: "m" with model.safetensors, "t" with torch's files instead.
class TorchDirectory : public ::testing::Test {
 protected:
  TorchDirectory() {
    test::write_tiny_directory(dir_ / "m");
    test::write_tiny_directory(dir_ / "t");
    tensors_ = io::read_safetensors(dir_ / "m/model.safetensors").tensors;
    fs::remove(dir_ / "t/model.safetensors");
  }
  void write_one_file() const { write_torch_file(dir_ / "t/pytorch_model.bin", tensors_); }
  void write_two_files() const {
    const size_t half = tensors_.size() / 2;
    nlohmann::json map = nlohmann::json::object();
    for (size_t i = 0; i < tensors_.size(); ++i)
      map[tensors_[i].name] = fmt::format("pytorch_model-0000{}-of-00002.bin", i < half ? 1 : 2);
    const auto middle = tensors_.begin() + static_cast<std::ptrdiff_t>(half);
    write_torch_file(dir_ / "t/pytorch_model-00001-of-00002.bin", {tensors_.begin(), middle});
    write_torch_file(dir_ / "t/pytorch_model-00002-of-00002.bin", {middle, tensors_.end()});
    std::ofstream(dir_ / "t/pytorch_model.bin.index.json")
        << nlohmann::json{{"weight_map", map}}.dump();
  }
  // Twice, since pages are dropped after a tensor was read.
  void expect_same_tensors() const {
    const auto plain = open_weights(dir_ / "m"), other = open_weights(dir_ / "t");
    EXPECT_EQ(other->dtype(), plain->dtype());
    for (int time = 0; time < 2; ++time)
      for (const io::TensorView& tensor : tensors_)
        EXPECT_TRUE(at::equal(other->read(tensor.name, tensor.shape, at::kFloat),
                              plain->read(tensor.name, tensor.shape, at::kFloat)))
            << tensor.name;
    EXPECT_EQ(other->unread(), plain->unread());
  }
  const TempDir dir_;
  std::vector<io::TensorView> tensors_;
};

TEST_F(TorchDirectory, OneFileHoldsTheSameModel) {
  write_one_file();
  expect_same_tensors();
  const ModelHeader header = read_model_header(dir_ / "t");
  ASSERT_NE(header.weights, nullptr);
  EXPECT_EQ(header.dtype, "bfloat16");
}

TEST_F(TorchDirectory, ShardsHoldTheSameModel) {
  write_two_files();
  expect_same_tensors();
}

TEST_F(TorchDirectory, TensorsWithinADictOfTheFileAreToldWithTheWayOut) {
  std::vector<io::TensorView> nested = tensors_;
  for (io::TensorView& tensor : nested) tensor.name = "state_dict." + tensor.name;
  write_torch_file(dir_ / "t/pytorch_model.bin", nested);
  const auto weights = open_weights(dir_ / "t");
  const io::TensorView& first = tensors_.front();
  using ::testing::HasSubstr;
  EXPECT_THAT([&] { weights->read(first.name, first.shape, at::kFloat); },
              ::testing::ThrowsMessage<FormatError>(::testing::AllOf(
                  HasSubstr("must hold a tensor " + first.name + "; in "),
                  HasSubstr("the tensors lie nested under state_dict; take them out in Python"),
                  HasSubstr("sd.get('state_dict', sd)"))));
}

TEST_F(TorchDirectory, AnExportHoldsSafetensorsAlone) {
  write_one_file();
  for (const std::string name : {"m", "t"}) {
    recipes::ModelChoice choice;
    choice.model = dir_ / name;
    choice.device = "cpu";
    recipes::TrainedModel trained = recipes::open_model(choice);
    recipes::export_model(trained, {.format = "merged", .output = dir_ / name + "-merged"});
  }
  EXPECT_EQ(test::read_file(dir_ / "t-merged/model.safetensors"),
            test::read_file(dir_ / "m-merged/model.safetensors"));
  for (const auto& entry : fs::directory_iterator(dir_ / "t-merged"))
    EXPECT_NE(entry.path().extension(), ".bin");
}

}  // namespace
}  // namespace qlora::model
