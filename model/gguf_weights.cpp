#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>

#include "base/error.h"
#include "io/mapped_file.h"
#include "model/expert_tensors.h"
#include "model/families/family.h"
#include "model/gguf_names.h"
#include "model/gguf_rows.h"
#include "model/read_tensor.h"
#include "model/weight_files.h"
#include "quant/formats/gguf_weight.h"

namespace qlora::model {
namespace {

class Gguf final : public WeightSource {
 public:
  explicit Gguf(const std::string& path) : file_(path) {
    place_ = path;
    architecture_ = read_architecture(file_);
    names_ = GgufNames(architecture_);
    take_rope_divisors();
    take_rope_factors();
    for (StackSpec* stack : {&architecture_.encoder, &architecture_.decoder})
      for (BlockSpec& block : stack->kinds)
        block.edit_each_linear([](LinearSpec& linear) { linear.bias = linear.needs_bias; });
    for (int64_t layer = 0; layer < architecture_.num_layers(); ++layer)
      architecture_.block(layer).edit_each_linear([&](LinearSpec& linear) {
        linear.bias |= has(architecture_.module(layer, linear.names) + ".bias");
      });
  }

  bool has(const std::string& name) const override {
    if (const auto expert = expert_tensor(architecture_, name))
      return !parts_of(*expert).views.empty();
    return file_.find(names_.of_tensor(name).name) != nullptr;
  }

  at::Tensor read(const std::string& name, const std::vector<int64_t>& shape,
                  at::ScalarType dtype) override {
    if (const auto expert = expert_tensor(architecture_, name)) {
      const ExpertParts parts = required_parts(*expert, name);
      for (const io::TensorView& part : parts.views) read_.insert(part.name);
      return read_expert(*expert, parts, dtype);
    }
    const GgufTensor stored = names_.of_tensor(name);
    const io::TensorView* view = file_.find(stored.name);
    if (!view) fail<FormatError>("{}: the weights must hold a tensor {}", place_, stored.name);
    read_.insert(stored.name);
    if (stored.added != 0)  // the sum of both is rounded where the file rounds it, and nowhere else
      return read_tensor(*view, shape, at::kFloat).sub_(stored.added).to(dtype);
    return rows_from_gguf(read_tensor(*view, shape, dtype), stored);
  }

  std::unique_ptr<quant::FrozenWeight> read_packed(const std::string& module, int64_t out,
                                                   int64_t in,
                                                   const quant::QuantizationOptions& options,
                                                   at::Device device) override {
    if (const auto expert = expert_tensor(architecture_, module + ".weight"))
      return read_packed_expert(required_parts(*expert, module), in, options, device);
    const GgufTensor stored = names_.of_tensor(module + ".weight");
    const io::TensorView* view = file_.find(stored.name);
    if (options.method != "as_stored" || !view || !io::is_block_type(view->dtype)) return nullptr;
    check_tensor(*view, {out, in});
    const at::Tensor blocks = blocks_of(*view);
    return std::make_unique<quant::GgufWeight>(rows_from_gguf(blocks, stored).to(device),
                                               view->dtype, in);
  }

  // Of an expert, which is a part of a tensor of the file.
  std::optional<quant::FrozenSize> packed_size(
      const std::string& module, int64_t out, int64_t in,
      const quant::QuantizationOptions& options) const override {
    const auto expert = expert_tensor(architecture_, module + ".weight");
    if (!expert || options.method != "as_stored") return std::nullopt;
    const auto type = type_of_blocks(parts_of(*expert));
    return type ? std::optional(quant::gguf_size(*type, out, in)) : std::nullopt;
  }

  at::ScalarType dtype() const override {
    std::vector<io::TensorView> matrices = file_.tensors();
    std::erase_if(matrices, [](const io::TensorView& t) { return is_always_float32(t.name); });
    return matrices_dtype(matrices);
  }
  bool has_blocks_alone() const override {
    return std::ranges::all_of(file_.tensors(), [](const io::TensorView& t) {
      return t.shape.size() < 2 || is_always_float32(t.name) || io::is_block_type(t.dtype);
    });
  }
  at::ScalarType dtype_of(const std::string& name, at::ScalarType of_matrices) const override {
    if (const auto expert = expert_tensor(architecture_, name)) {
      const ExpertParts parts = parts_of(*expert);
      const bool is_bias = !parts.views.empty() && is_always_float32(parts.views.front().name);
      return is_bias ? at::kFloat : of_matrices;
    }
    // A directory has a tensor for each row of a norm by groups (NormSpec::tensor()).
    const size_t group = name.find(".norms.");
    const io::TensorView* view = file_.find(
        names_.of_tensor(group == std::string::npos ? name : name.substr(0, group) + ".weight")
            .name);
    const bool is_float32 = view && view->dtype == io::DType::kF32 &&
                            (view->shape.size() < 2 || is_always_float32(view->name));
    return is_float32 ? at::kFloat : of_matrices;
  }

  std::string packing(const std::string& module) const override {
    const auto expert = expert_tensor(architecture_, module + ".weight");
    if (expert) {
      const auto type = type_of_blocks(parts_of(*expert));
      return type ? io::dtype_name(*type) : "";
    }
    const io::TensorView* view = file_.find(names_.of_tensor(module + ".weight").name);
    return view && io::is_block_type(view->dtype) ? io::dtype_name(view->dtype) : "";
  }

  // But for a head that is the embedding once more, and for a table that T5's cross-attention has
  // in old checkpoints and uses nowhere.
  std::vector<std::string> unread() const override {
    std::vector<std::string> names = names_but(file_.tensors(), read_);
    if (architecture_.has_encoder())
      std::erase_if(names, [this](const std::string& name) {
        return (architecture_.tied_embeddings &&
                name == architecture_.head.names.gguf + ".weight") ||
               name.ends_with(".cross_attn_rel_b.weight");
      });
    return names;
  }

 private:
  // What llama.cpp's tools write in float32 whatever type the large matrices have, and what has two
  // dimensions all the same: norms of single heads, biases of experts, tables of biases, routers,
  // gates of shared experts, learned positions.
  static bool is_always_float32(const std::string& tensor) {
    for (const char* name : {"_norm.weight", ".bias", "attn_rel_b.weight", "ffn_gate_inp.weight",
                             "ffn_gate_inp_shexp.weight", "position_embd.weight"})
      if (tensor.ends_with(name)) return true;
    return false;
  }
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

  // In which all parts lie; nothing if one lies in floating point, or in another kind of blocks.
  static std::optional<io::DType> type_of_blocks(const ExpertParts& parts) {
    if (parts.views.empty() || !io::is_block_type(parts.views.front().dtype) ||
        parts.views.back().dtype != parts.views.front().dtype)
      return std::nullopt;
    return parts.views.front().dtype;
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
    const auto type = type_of_blocks(parts);
    if (options.method != "as_stored" || !type) return nullptr;
    std::vector<at::Tensor> rows;
    for (const io::TensorView& view : parts.views) {
      check_tensor(view, view.shape);
      rows.push_back(blocks_of(view));
    }
    return std::make_unique<quant::GgufWeight>(at::cat(rows).to(device), *type, in);
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
  io::GgufFile file_;
  std::set<std::string> read_;
};

}  // namespace

std::unique_ptr<WeightSource> open_gguf_file(const std::string& path) {
  return std::make_unique<Gguf>(path);
}

}  // namespace qlora::model
