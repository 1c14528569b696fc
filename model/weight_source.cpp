#include "model/weight_source.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/warn_once.h"
#include "io/mapped_file.h"
#include "io/safetensors.h"
#include "model/expert_tensors.h"
#include "model/families/family.h"
#include "model/file_layout.h"
#include "model/gguf_names.h"
#include "model/read_tensor.h"
#include "model/stored_quantization.h"
#include "model/tensor_spellings.h"
#include "quant/formats/bitsandbytes_layout.h"
#include "quant/formats/gguf_weight.h"

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

at::ScalarType matrices_dtype(const std::vector<io::TensorView>& tensors) {
  bool wide = false, half = false, bfloat16 = false;
  for (const io::TensorView& tensor : tensors) {
    if (tensor.shape.size() < 2) continue;  // norms are float32 in any file of GGUF
    wide |= tensor.dtype == io::DType::kF32;
    half |= tensor.dtype == io::DType::kF16;
    bfloat16 |= tensor.dtype == io::DType::kBF16;
  }
  if (wide || (half && bfloat16)) return at::kFloat;
  return half ? at::kHalf : at::kBFloat16;
}

class HuggingFaceDirectory final : public WeightSource {
 public:
  explicit HuggingFaceDirectory(const std::string& directory) {
    place_ = directory;
    const std::string config_path = (fs::path(directory) / "config.json").string();
    const nlohmann::json document = io::read_json_file(config_path);
    const io::JsonNode json(document, config_path);
    architecture_ = read_architecture(json);
    head_ = architecture_.head.names.hugging_face + ".weight";
    embedding_ = architecture_.embedding.names.hugging_face + ".weight";
    require_known_packing(json);
    if (const auto quantization = json.find("quantization_config"))
      stored_ = read_quantization_config(*quantization);
    file_ = io::read_safetensors_directory(directory);
    name_as_transformers_does(architecture_, file_);
    part_different_embeddings();
    take_stored_biases(json.find("text_config").value_or(json));
    layout_ = FileLayout(architecture_);
    experts_ = ExpertTensors(architecture_);
  }

  bool has(const std::string& name) const override {
    return file_.find(name) != nullptr || !parts_of(name).views.empty();
  }

  at::Tensor read(const std::string& name, const std::vector<int64_t>& shape,
                  at::ScalarType dtype) override {
    if (const ExpertParts parts = parts_of(name); !parts.views.empty()) {
      for (const io::TensorView& part : parts.views) read_.insert(part.name);
      return read_expert(*experts_.find(name), parts, dtype);
    }
    const io::TensorView* view = file_.find(name);
    // Tied matrices may lie under either name.
    if (!view && name == embedding_ && architecture_.tied_embeddings) view = file_.find(head_);
    if (!view)
      fail<FormatError>("{}: the weights must hold a tensor {}", place_, layout_.in_files(name));
    require_not_packed(*view, name);
    read_.insert(name);
    if (layout_.is_by_inputs(name))
      return read_tensor(*view, {shape[1], shape[0]}, dtype).t().contiguous();
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

  at::ScalarType dtype() const override {
    // Packed bytes may be stored as numbers of any type.
    std::vector<io::TensorView> plain;
    std::ranges::copy_if(file_.tensors, std::back_inserter(plain), [&](const io::TensorView& t) {
      return file_.find(t.name + ".absmax") == nullptr;
    });
    return matrices_dtype(plain);
  }

  std::string packing(const std::string& module) const override {
    return quant::is_bitsandbytes_module(file_, module) ? "bitsandbytes' layout" : "";
  }

  std::vector<std::string> unread() const override {
    std::vector<std::string> names = names_but(file_.tensors, read_);
    // The second copy of tied embeddings.
    std::erase_if(names, [this](const std::string& name) {
      return architecture_.tied_embeddings && name == head_;
    });
    return names;
  }

 private:
  // Of an expert whose tensor is no tensor of the file.
  ExpertParts parts_of(const std::string& name) const {
    const ExpertTensor* expert = experts_.find(name);
    if (!expert || file_.find(name)) return {};
    return in_hugging_face(*expert, [this](const std::string& n) { return file_.find(n); });
  }

  // Packed tensors in a directory whose config.json does not say so.
  void require_not_packed(const io::TensorView& view, const std::string& name) const {
    const std::string module = name.substr(0, name.rfind('.'));
    if (view.dtype == io::DType::kU32 && file_.find(module + ".scales"))
      fail<FormatError>(
          "{}: tensor {} is packed with scales beside it, as MLX does, which this program does not "
          "read; give the original 16-bit model",
          view.file, name);
    if (!stored_ && name.ends_with(".weight") && quant::is_bitsandbytes_module(file_, module))
      fail<FormatError>(
          "{}: tensor {} is packed ({}), but config.json has no quantization_config that says how; "
          "take it from the directory that the weights were saved in",
          view.file, name, io::dtype_name(view.dtype));
  }

  // MLX keeps its own packing under another key, in tensors of transformers' names.
  static void require_known_packing(const io::JsonNode& json) {
    const auto mlx = json.find("quantization");
    if (!mlx) return;
    fail<FormatError>(
        "{}: the weights are quantized by MLX, which this program does not read; give the original "
        "16-bit model, or convert it back with mlx_lm.convert --dequantize",
        mlx->place());
  }

  // As transformers 5: a head of its own is used though config.json ties it to the embedding.
  void part_different_embeddings() {
    const io::TensorView* head = file_.find(head_);
    const io::TensorView* embedding = file_.find(embedding_);
    if (!architecture_.tied_embeddings || !head || !embedding || same_values(*head, *embedding))
      return;
    architecture_.tied_embeddings = false;
    log::warning_once(
        "{}: config.json says tie_word_embeddings true, but {} differs from {}; both are used, as "
        "transformers does. Say tie_word_embeddings false to make them agree",
        place_, head_, embedding_);
  }

  // Biases that lie in the file are used where config.json leaves the question open.
  void take_stored_biases(const io::JsonNode& json) {
    for (int64_t layer = 0; layer < architecture_.num_layers(); ++layer)
      architecture_.decoder.block(layer).edit_each_linear([&](LinearSpec& linear) {
        const io::TensorView* stored =
            file_.find(architecture_.module(layer, linear.names) + ".bias");
        if (stored && !linear.bias) take_stored_bias(json, *stored, linear);
      });
  }

  void take_stored_bias(const io::JsonNode& json, const io::TensorView& stored,
                        LinearSpec& linear) const {
    if (linear.bias_key.empty())
      fail<FormatError>("{} holds {}, but the layer has no bias in the model family {}",
                        stored.file, stored.name, architecture_.family);
    if (const auto said = json.find(linear.bias_key))
      fail<FormatError>(
          "{} is false, but {} holds {}; say true to use the biases, or take them out of the file",
          said->place(), stored.file, stored.name);
    linear.bias = true;
    log::warning_once("{}: {} is not in config.json, and the file holds {}: the biases are used",
                      place_, linear.bias_key, stored.name);
  }

  static bool same_values(const io::TensorView& a, const io::TensorView& b) {
    if (a.shape != b.shape) return false;
    if (a.dtype == b.dtype && std::ranges::equal(a.bytes, b.bytes)) return true;
    return at::equal(read_tensor(a, a.shape, at::kFloat), read_tensor(b, b.shape, at::kFloat));
  }

  std::string head_, embedding_;  // tensors
  io::TensorFile file_;
  std::optional<quant::QuantizationOptions> stored_;
  std::set<std::string> read_;
  FileLayout layout_;
  ExpertTensors experts_;
};

// Rows of each head from RoPE's interleaved order (pairs side by side) to halves.
at::Tensor halves_from_pairs(const at::Tensor& rows, int64_t head_dim) {
  const int64_t heads = rows.size(0) / head_dim;
  std::vector<int64_t> shape = {heads, head_dim / 2, 2};
  for (int64_t d = 1; d < rows.dim(); ++d) shape.push_back(rows.size(d));
  return rows.view(shape).transpose(1, 2).contiguous().view(rows.sizes());
}

// Rows of all queries, then all keys, then all values in the groups of heads_in_groups().
at::Tensor groups_from_order(const at::Tensor& rows, const AttentionShape& shape) {
  const auto in_groups = [&](int64_t first, int64_t heads) {
    std::vector<int64_t> sizes = rows.sizes().vec();
    sizes[0] = heads / shape.kv_heads * shape.head_dim;
    sizes.insert(sizes.begin(), shape.kv_heads);
    return rows.narrow(0, first * shape.head_dim, heads * shape.head_dim).view(sizes);
  };
  return at::cat({in_groups(0, shape.heads), in_groups(shape.heads, shape.kv_heads),
                  in_groups(shape.heads + shape.kv_heads, shape.kv_heads)},
                 1)
      .view(rows.sizes());
}

// As Hugging Face orders the rows.
at::Tensor reordered(const at::Tensor& rows, const GgufTensor& stored) {
  if (stored.rows == RowOrder::kRotaryPairs)
    return halves_from_pairs(rows, stored.attention.head_dim);
  if (stored.rows == RowOrder::kQueriesThenKeys) return groups_from_order(rows, stored.attention);
  return rows;
}

class Gguf final : public WeightSource {
 public:
  explicit Gguf(const std::string& path) : file_(path) {
    place_ = path;
    architecture_ = read_architecture(file_);
    names_ = GgufNames(architecture_);
    experts_ = ExpertTensors(architecture_);
    take_rope_divisors();
    take_rope_factors();
    for (BlockSpec& block : architecture_.decoder.kinds)
      block.edit_each_linear([](LinearSpec& linear) { linear.bias = false; });
    for (int64_t layer = 0; layer < architecture_.num_layers(); ++layer)
      architecture_.decoder.block(layer).edit_each_linear([&](LinearSpec& linear) {
        linear.bias |= has(architecture_.module(layer, linear.names) + ".bias");
      });
  }

  bool has(const std::string& name) const override {
    if (const ExpertTensor* expert = experts_.find(name)) return !parts_of(*expert).views.empty();
    return file_.find(names_.of_tensor(name).name) != nullptr;
  }

  at::Tensor read(const std::string& name, const std::vector<int64_t>& shape,
                  at::ScalarType dtype) override {
    if (const ExpertTensor* expert = experts_.find(name)) {
      const ExpertParts parts = required_parts(*expert, name);
      for (const io::TensorView& part : parts.views) read_.insert(part.name);
      return read_expert(*expert, parts, dtype);
    }
    const GgufTensor stored = names_.of_tensor(name);
    const io::TensorView* view = file_.find(stored.name);
    if (!view) fail<FormatError>("{}: the weights must hold a tensor {}", place_, stored.name);
    read_.insert(stored.name);
    at::Tensor tensor = read_tensor(*view, shape, dtype);
    return stored.added != 0 ? tensor.sub_(stored.added) : reordered(tensor, stored);
  }

  std::unique_ptr<quant::FrozenWeight> read_packed(const std::string& module, int64_t out,
                                                   int64_t in,
                                                   const quant::QuantizationOptions& options,
                                                   at::Device device) override {
    if (const ExpertTensor* expert = experts_.find(module + ".weight"))
      return read_packed_expert(required_parts(*expert, module), in, options, device);
    const GgufTensor stored = names_.of_tensor(module + ".weight");
    const io::TensorView* view = file_.find(stored.name);
    if (options.method != "as_stored" || !view || !io::is_block_type(view->dtype)) return nullptr;
    check_tensor(*view, {out, in});
    const at::Tensor blocks = blocks_of(*view);
    return std::make_unique<quant::GgufWeight>(reordered(blocks, stored).to(device), view->dtype,
                                               in);
  }

  at::ScalarType dtype() const override { return matrices_dtype(file_.tensors()); }

  std::string packing(const std::string& module) const override {
    const ExpertTensor* expert = experts_.find(module + ".weight");
    const ExpertParts parts = expert ? parts_of(*expert) : ExpertParts();
    const io::TensorView* view = parts.views.empty() ? nullptr : &parts.views.front();
    if (!expert) view = file_.find(names_.of_tensor(module + ".weight").name);
    return view && io::is_block_type(view->dtype) ? io::dtype_name(view->dtype) : "";
  }

  std::vector<std::string> unread() const override { return names_but(file_.tensors(), read_); }

 private:
  ExpertParts parts_of(const ExpertTensor& expert) const {
    return in_gguf(expert, [this](const std::string& name) { return file_.find(name); });
  }
  ExpertParts required_parts(const ExpertTensor& expert, const std::string& name) const {
    ExpertParts parts = parts_of(expert);
    if (parts.views.empty())
      fail<FormatError>("{}: the weights must hold {}, a part of {}ffn_*_exps", place_, name,
                        expert.gguf_block);
    return parts;
  }

  // [rows, bytes of a row]
  at::Tensor blocks_of(const io::TensorView& view) {
    read_.insert(view.name);
    const auto bytes = static_cast<int64_t>(view.bytes.size());
    at::Tensor blocks = at::empty({view.shape[0], bytes / view.shape[0]}, at::kByte);
    std::memcpy(blocks.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
    io::drop_pages(view.bytes);
    return blocks;
  }

  // Gate and up below each other, if both are in blocks of one kind.
  std::unique_ptr<quant::FrozenWeight> read_packed_expert(const ExpertParts& parts, int64_t in,
                                                          const quant::QuantizationOptions& options,
                                                          at::Device device) {
    const io::DType type = parts.views.front().dtype;
    if (options.method != "as_stored" || !io::is_block_type(type) ||
        parts.views.back().dtype != type)
      return nullptr;
    std::vector<at::Tensor> rows;
    for (const io::TensorView& view : parts.views) {
      check_tensor(view, view.shape);
      rows.push_back(blocks_of(view));
    }
    return std::make_unique<quant::GgufWeight>(at::cat(rows).to(device), type, in);
  }

  // One for each frequency of the first rotation.
  std::vector<float> rope_numbers(const io::TensorView& view) {
    const at::Tensor values =
        read_tensor(view, {architecture_.rotaries.front().width / 2}, at::kFloat);
    read_.insert(view.name);
    const auto* first = values.const_data_ptr<float>();
    return {first, first + values.numel()};
  }

  void take_rope_divisors() {
    const io::TensorView* divisors = file_.find(kRopeDivisors);
    if (!divisors) return;
    if (architecture_.rotaries.empty()) return;  // unread, and warned of
    RotarySpec& rotary = architecture_.rotaries.front();
    const std::vector<float> values = rope_numbers(*divisors);
    if (!std::ranges::all_of(values, [](float d) { return d > 0; }))
      fail<FormatError>("{}: tensor {} must hold numbers above 0, which divide RoPE's frequencies",
                        place_, kRopeDivisors);
    rotary.rope = recognise_llama3(rotary.rope, values);
  }

  // Of longrope, whose frequencies depend on the length of a text (Phi-3).
  void take_rope_factors() {
    const io::TensorView *short_factors = file_.find("rope_factors_short.weight"),
                         *long_factors = file_.find("rope_factors_long.weight");
    if (!short_factors || !long_factors || architecture_.rotaries.empty()) return;
    RotarySpec& rotary = architecture_.rotaries.front();
    const std::string prefix = file_.text("general.architecture") + ".rope.scaling.";
    rotary.rope.type = "longrope";
    rotary.rope.short_factor = rope_numbers(*short_factors);
    rotary.rope.long_factor = rope_numbers(*long_factors);
    rotary.rope.original_max_positions = file_.number(prefix + "original_context_length");
    rotary.rope.attention_factor =
        file_.number_or(prefix + "attn_factor",
                        longrope_attention_factor(static_cast<double>(architecture_.max_positions) /
                                                      rotary.rope.original_max_positions,
                                                  rotary.rope.original_max_positions));
    validate(rotary, place_);
  }

  static constexpr const char* kRopeDivisors = "rope_freqs.weight";
  GgufNames names_;
  ExpertTensors experts_;
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
