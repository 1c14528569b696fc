#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/compare_rows.h"
#include "base/error.h"
#include "base/warn_once.h"
#include "io/weight_directory.h"
#include "model/expert_tensors.h"
#include "model/families/family.h"
#include "model/file_layout.h"
#include "model/float32_tensors.h"
#include "model/packed_layers.h"
#include "model/read_tensor.h"
#include "model/tensor_spellings.h"
#include "model/weight_files.h"
#include "quant/formats/bitsandbytes_layout.h"
#include "quant/formats/mxfp4_weight.h"

namespace qlora::model {
namespace {

// That the tensor lies in a dict within the file's, as in checkpoints of training loops, and how to
// take it out; or nothing.
std::string where_it_lies(const io::TensorFile& file, const std::string& name) {
  const auto nested = std::ranges::find_if(
      file.tensors, [&](const io::TensorView& t) { return t.name.ends_with("." + name); });
  if (nested == file.tensors.end()) return "";
  const std::string outer = nested->name.substr(0, nested->name.size() - name.size() - 1);
  std::string sentence =
      fmt::format("; in {} the tensors lie nested under {}", nested->file, outer);
  if (nested->file.ends_with(".safetensors"))
    return sentence + "; save them without this beginning of their names";
  return sentence +
         fmt::format(
             "; take them out in Python: sd = torch.load('{0}'); sd = sd.get('{1}', sd); "
             "torch.save({{k.removeprefix('{1}.'): v for k, v in sd.items()}}, '{0}')",
             nested->file, outer);
}

class HuggingFaceDirectory final : public WeightSource {
 public:
  explicit HuggingFaceDirectory(const std::string& directory) {
    place_ = directory;
    const std::string config_path = config_file(directory);
    const nlohmann::json document = io::read_json_file(config_path);
    const io::JsonNode json(document, config_path);
    architecture_ = read_architecture(json);
    head_ = architecture_.head.names.hugging_face + ".weight";
    embedding_ = architecture_.embedding.names.hugging_face + ".weight";
    require_known_packing(json);
    file_ = io::read_weight_directory(directory);
    read_packing(json);
    read_float32_beside(json);
    name_as_transformers_does(architecture_, file_);
    float32_tensors_.name_as_transformers_does(architecture_);
    part_different_embeddings();
    require_equal_copies();
    take_stored_biases(json.find("text_config").value_or(json));
    layout_ = FileLayout(architecture_);
  }

  bool has(const std::string& name) const override {
    return file_.find(name) != nullptr || !parts_of(name).views.empty();
  }

  at::Tensor read(const std::string& name, const std::vector<int64_t>& shape,
                  at::ScalarType dtype) override {
    if (const ExpertParts parts = parts_of(name); !parts.views.empty()) {
      for (const io::TensorView& part : parts.views) read_.insert(part.name);
      return read_expert(*expert_tensor(architecture_, name), parts, dtype);
    }
    const io::TensorView* view = file_.find(name);
    // Tied matrices may lie under either name.
    if (!view && name == embedding_ && architecture_.tied_embeddings) view = file_.find(head_);
    if (!view)
      fail<FormatError>("{}: the weights must hold a tensor {}{}", place_, layout_.in_files(name),
                        where_it_lies(file_, layout_.in_files(name)));
    require_not_packed(*view, name);
    float32_tensors_.require_as_rounded(*view);
    read_.insert(name);
    if (layout_.is_by_inputs(name))
      return read_tensor(*view, {shape[1], shape[0]}, dtype).t().contiguous();
    return read_tensor(*view, shape, dtype);
  }

  std::unique_ptr<quant::FrozenWeight> read_packed(const std::string& module, int64_t out,
                                                   int64_t in,
                                                   const quant::QuantizationOptions& options,
                                                   at::Device device) override {
    if (auto weight = packed_.read(module, out, in, options, device, read_)) return weight;
    if (options.method != "as_stored") return nullptr;
    const ExpertParts parts = parts_of(module + ".weight");
    auto weight = read_packed_expert(parts, device);
    for (const io::TensorView& part : parts.views)
      if (weight) read_.insert(part.name);
    return weight;
  }

  std::optional<quant::FrozenSize> packed_size(
      const std::string& module, int64_t out, int64_t in,
      const quant::QuantizationOptions& options) const override {
    if (auto size = packed_.size(module, out, in)) return size;
    if (options.method != "as_stored" || !parts_of(module + ".weight").is_mxfp4)
      return std::nullopt;
    return quant::mxfp4_size(out, in);
  }

  const io::TensorView* stored(const std::string& name) const override { return file_.find(name); }

  at::ScalarType dtype() const override {
    if (float32_beside_) return *float32_beside_;
    // Packed bytes may be stored as numbers of any type.
    std::vector<io::TensorView> plain;
    std::ranges::copy_if(file_.tensors, std::back_inserter(plain), [&](const io::TensorView& t) {
      return file_.find(t.name + ".absmax") == nullptr && !packed_.is_part(t.name);
    });
    return matrices_dtype(plain);
  }

  at::ScalarType dtype_of(const std::string& name, at::ScalarType of_matrices) const override {
    const io::TensorView* view = float32_beside_ ? file_.find(name) : nullptr;
    return view && view->dtype == io::DType::kF32 ? at::kFloat : of_matrices;
  }

  std::string packing(const std::string& module) const override { return packed_.packing(module); }

  std::vector<std::string> unread() const override {
    std::vector<std::string> names = names_but(file_.tensors, read_);
    // The second copy of tied embeddings.
    std::erase_if(names, [this](const std::string& name) {
      return (architecture_.tied_embeddings && name == head_) ||
             std::ranges::count(architecture_.embedding_copies, name) > 0;
    });
    return names;
  }

 private:
  // Of an expert whose tensor is no tensor of the file.
  ExpertParts parts_of(const std::string& name) const {
    const auto expert = expert_tensor(architecture_, name);
    if (!expert || file_.find(name)) return {};
    return in_hugging_face(*expert, [this](const std::string& n) { return file_.find(n); });
  }

  void read_packing(const io::JsonNode& json) {
    if (const auto packing = packing_config(json, place_))
      packed_.read_config(io::JsonNode(packing->config, packing->place));
    if (!packed_.any()) return;
    const auto is_packed = [this](const io::TensorView& tensor) {
      const size_t dot = tensor.name.rfind('.');
      return dot != std::string::npos && !packed_.packing(tensor.name.substr(0, dot)).empty();
    };
    if (std::ranges::none_of(file_.tensors, is_packed))
      log::warning_once(
          "{}: the model's config says that the weights are quantized ({}), and not one of them "
          "is; they are used as they lie. The recipe's section quantization packs them here",
          place_, packed_.name());
  }

  void read_float32_beside(const io::JsonNode& json) {
    const std::string type = json.string_or(kFloat32Beside, "");
    if (type != json.string_or("dtype", json.string_or("torch_dtype", ""))) return;
    if (type == "bfloat16") float32_beside_ = at::kBFloat16;
    if (type == "float16") float32_beside_ = at::kHalf;
    if (float32_beside_) float32_tensors_.take_from(place_, *float32_beside_, file_);
  }

  // Packed tensors in a directory whose config.json does not say so.
  void require_not_packed(const io::TensorView& view, const std::string& name) const {
    const std::string module = name.substr(0, name.rfind('.'));
    if (view.dtype == io::DType::kU32 && file_.find(module + ".scales"))
      fail<FormatError>(
          "{}: tensor {} is packed with scales beside it, as MLX does, which this program does not "
          "read; give the original 16-bit model",
          view.file, name);
    if (!packed_.any() && name.ends_with(".weight") && quant::is_bitsandbytes_module(file_, module))
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
    if (architecture_.has_encoder()) return;  // transformers 5 writes true for every T5
    log::warning_once(
        "{}: config.json says tie_word_embeddings true, but {} differs from {}; both are used, as "
        "transformers does. Say tie_word_embeddings false to make them agree",
        place_, head_, embedding_);
  }

  void require_equal_copies() const {
    const io::TensorView* embedding = file_.find(embedding_);
    for (const std::string& name : architecture_.embedding_copies)
      if (const io::TensorView* copy = file_.find(name); copy && embedding)
        if (!same_values(*copy, *embedding))
          fail<FormatError>(
              "{}: {} differs from {}; this version has one embedding for encoder and decoder",
              place_, name, embedding_);
  }

  // Biases that lie in the file are used where config.json leaves the question open.
  void take_stored_biases(const io::JsonNode& json) {
    for (int64_t layer = 0; layer < architecture_.num_layers(); ++layer)
      architecture_.block(layer).edit_each_linear([&](LinearSpec& linear) {
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
    if (a.shape.empty()) return false;
    return all_rows(a.shape.front(), [&](int64_t first, int64_t count) {
      return at::equal(read_rows(a, first, count, at::kFloat),
                       read_rows(b, first, count, at::kFloat));
    });
  }

  std::string head_, embedding_;  // tensors
  std::optional<at::ScalarType> float32_beside_;
  Float32Tensors float32_tensors_;
  io::TensorFile file_;
  PackedLayers packed_{architecture_, file_};
  std::set<std::string> read_;
  FileLayout layout_;
};

}  // namespace

std::unique_ptr<WeightSource> open_hugging_face_directory(const std::string& directory) {
  return std::make_unique<HuggingFaceDirectory>(directory);
}

}  // namespace qlora::model
