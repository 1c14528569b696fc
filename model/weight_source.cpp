#include "model/weight_source.h"

#include <ATen/ATen.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/error.h"
#include "io/safetensors.h"
#include "model/read_tensor.h"
#include "model/stored_quantization.h"
#include "quant/bitsandbytes_layout.h"
#include "quant/gguf_weight.h"

namespace qlora::model {
namespace {
namespace fs = std::filesystem;

std::vector<std::string> names_but(const std::vector<io::TensorView>& tensors,
                                   const std::set<std::string>& read) {
  std::vector<std::string> names;
  for (const io::TensorView& tensor : tensors)
    if (!read.contains(tensor.name)) names.push_back(tensor.name);
  return names;
}

class HuggingFaceDirectory final : public WeightSource {
 public:
  explicit HuggingFaceDirectory(const std::string& directory) {
    place_ = directory;
    const std::string config_path = (fs::path(directory) / "config.json").string();
    const nlohmann::json document = io::read_json_file(config_path);
    const io::JsonNode json(document, config_path);
    family_ = &family_of_model_type(json.at("model_type").as_string(), config_path);
    config_ = family_->from_hugging_face(json);
    if (const auto quantization = json.find("quantization_config"))
      stored_ = read_quantization_config(*quantization);
    file_ = io::read_safetensors_directory(directory);
  }

  bool has(const std::string& name) const override { return file_.find(name) != nullptr; }

  at::Tensor read(const std::string& name, const std::vector<int64_t>& shape,
                  at::ScalarType dtype) override {
    const io::TensorView* view = file_.find(name);
    if (!view) fail<FormatError>("{}: the weights must hold a tensor {}", place_, name);
    read_.insert(name);
    return read_tensor(*view, shape, dtype);
  }

  std::unique_ptr<quant::FrozenWeight> read_packed(const std::string& module, int64_t out,
                                                   int64_t in,
                                                   const quant::QuantizationOptions& options,
                                                   at::Device device) override {
    if (!stored_ || !quant::is_bitsandbytes_module(file_, module)) return nullptr;
    require_stored_quantization(options, *stored_, place_);
    const bool as_stored = options.method == "as_stored";
    const quant::Int8Products products{options.method == "int8_weight_only",
                                       as_stored ? stored_->threshold : options.threshold};
    return quant::read_bitsandbytes_module(file_, module, quant::WeightShape::matrix(out, in),
                                           products, device, read_);
  }

  std::string packing(const std::string& module) const override {
    return quant::is_bitsandbytes_module(file_, module) ? "bitsandbytes' layout" : "";
  }

  std::vector<std::string> unread() const override {
    std::vector<std::string> names = names_but(file_.tensors, read_);
    // Computed buffers that old checkpoints carry, and the copy of tied embeddings.
    std::erase_if(names, [this](const std::string& name) {
      return name.ends_with(".rotary_emb.inv_freq") ||
             (config_.tied_embeddings && name == "lm_head.weight");
    });
    return names;
  }

 private:
  io::TensorFile file_;
  std::optional<quant::QuantizationOptions> stored_;
  std::set<std::string> read_;
};

// Rows of each head from RoPE's interleaved order (pairs side by side) to halves.
at::Tensor halves_from_pairs(const at::Tensor& rows, int64_t head_dim) {
  const int64_t heads = rows.size(0) / head_dim;
  std::vector<int64_t> shape = {heads, head_dim / 2, 2};
  for (int64_t d = 1; d < rows.dim(); ++d) shape.push_back(rows.size(d));
  return rows.view(shape).transpose(1, 2).contiguous().view(rows.sizes());
}

class Gguf final : public WeightSource {
 public:
  explicit Gguf(const std::string& path) : file_(path) {
    place_ = path;
    family_ = &family_of_gguf(file_.text("general.architecture"), path);
    config_ = family_->from_gguf(file_);
    if (const io::TensorView* divisors = file_.find(kRopeDivisors)) {
      const at::Tensor values = read_tensor(*divisors, {config_.head_dim / 2}, at::kFloat);
      const auto* first = values.const_data_ptr<float>();
      config_.rope = recognise_llama3(config_.rope, {first, first + values.numel()});
      read_.insert(kRopeDivisors);
    }
  }

  bool has(const std::string& name) const override {
    return file_.find(family_->gguf_name(name)) != nullptr;
  }

  at::Tensor read(const std::string& name, const std::vector<int64_t>& shape,
                  at::ScalarType dtype) override {
    const std::string stored = family_->gguf_name(name);
    const io::TensorView* view = file_.find(stored);
    if (!view) fail<FormatError>("{}: the weights must hold a tensor {}", place_, stored);
    read_.insert(stored);
    at::Tensor tensor = read_tensor(*view, shape, dtype);
    return family_->interleaved_in_gguf(name) ? halves_from_pairs(tensor, config_.head_dim)
                                              : tensor;
  }

  std::unique_ptr<quant::FrozenWeight> read_packed(const std::string& module, int64_t out,
                                                   int64_t in,
                                                   const quant::QuantizationOptions& options,
                                                   at::Device device) override {
    const std::string name = module + ".weight", stored = family_->gguf_name(name);
    const io::TensorView* view = file_.find(stored);
    if (options.method != "as_stored" || !view || !io::is_block_type(view->dtype)) return nullptr;
    read_tensor(*view, {out, in}, at::kFloat);  // for its checks of shape and values
    read_.insert(stored);
    at::Tensor blocks = at::empty({out, static_cast<int64_t>(view->bytes.size()) / out}, at::kByte);
    std::memcpy(blocks.mutable_data_ptr(), view->bytes.data(), view->bytes.size());
    if (family_->interleaved_in_gguf(name)) blocks = halves_from_pairs(blocks, config_.head_dim);
    return std::make_unique<quant::GgufWeight>(blocks.to(device), view->dtype, in);
  }

  std::string packing(const std::string& module) const override {
    const io::TensorView* view = file_.find(family_->gguf_name(module + ".weight"));
    return view && io::is_block_type(view->dtype) ? io::dtype_name(view->dtype) : "";
  }

  std::vector<std::string> unread() const override { return names_but(file_.tensors(), read_); }

 private:
  static constexpr const char* kRopeDivisors = "rope_freqs.weight";
  io::GgufFile file_;
  std::set<std::string> read_;
};

}  // namespace

std::unique_ptr<WeightSource> open_weights(const std::string& path) {
  if (!fs::exists(path)) fail<IoError>("{} does not exist; a model was to be read from it", path);
  if (fs::is_directory(path)) return std::make_unique<HuggingFaceDirectory>(path);
  if (fs::path(path).extension() == ".gguf") return std::make_unique<Gguf>(path);
  fail<ConfigError>("a model must be a Hugging Face directory or a .gguf file, found {}", path);
}

}  // namespace qlora::model
