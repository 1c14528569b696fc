#include "model/load.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>

#include <map>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/warn_once.h"
#include "io/live_mappings.h"
#include "model/layer_quantization.h"
#include "model/offload_blocks.h"
#include "quant/make_frozen_weight.h"

namespace qlora::model {
namespace {

int64_t num_matrices(const Architecture& a) {
  return static_cast<int64_t>(a.linear_modules().size()) + (a.tied_embeddings ? 1 : 2) +
         (a.embedding.positions.present() ? 1 : 0);
}

std::string phase_of(const WeightSource& source, const quant::QuantizationOptions& quantization,
                     bool changes) {
  const bool quantizes =
      changes || (quantization.method != "none" && quantization.method != "as_stored");
  return (quantizes ? "reading and quantizing " : "reading ") + source.place();
}

// "a, b, c, ... (7 in all)"
std::string first_of(const std::vector<std::string>& names) {
  const size_t shown = std::min<size_t>(names.size(), 3);
  std::string text = fmt::format(
      "{}", fmt::join(names.begin(), names.begin() + static_cast<ptrdiff_t>(shown), ", "));
  if (shown < names.size()) text += fmt::format(", ... ({} in all)", names.size());
  return text;
}

// The decoder's parts by their Hugging Face names, read in the order of the layers. Left between
// two matrices if a stop is wanted.
class Loader {
 public:
  Loader(WeightSource& source, at::ScalarType dtype, const quant::QuantizationOptions& quantization,
         at::Device device, const WeightMaker& make, bool changes = false,
         BlockOffload* offload = nullptr)
      : source_(source),
        dtype_(dtype),
        quantization_(quantization),
        device_(device),
        make_(make),
        offload_(offload),
        counts_blocks_(!changes),
        progress_(phase_of(source, quantization, changes), num_matrices(source.architecture()),
                  "matrices") {}

  Progress& progress() { return progress_; }

  // Once all has been read.
  void warn_about_zeros() const {
    if (!zeros_.empty())
      log::warning_once("{}: there is no {}; taken as zero, as in transformers", source_.place(),
                        first_of(zeros_));
  }

  // The embedding or the head.
  at::Tensor outer(const TensorNames& names, const Architecture& a) {
    at::Tensor weight = matrix(names.hugging_face + ".weight", a.vocab_size, a.embedding.width);
    progress_.advance();
    return weight;
  }

  // Null where the file has it as numbers.
  std::unique_ptr<quant::FrozenWeight> packed_head(const Architecture& a) {
    auto head = source_.read_packed(a.head.names.hugging_face, a.head.out, a.head.in, quantization_,
                                    device_);
    if (head) progress_.advance();
    return head;
  }

  at::Tensor positions(const Architecture& a) {
    const PositionSpec& learned = a.embedding.positions;
    at::Tensor rows = matrix(learned.names.hugging_face + ".weight", learned.rows, a.hidden_size);
    progress_.advance();
    return rows;
  }

  // Undefined where there is none.
  at::Tensor relative_table(const RelativeBiasSpec& spec) {
    return spec.present() ? matrix(spec.tensor(), spec.buckets, spec.heads) : at::Tensor();
  }

  at::Tensor head_bias(const Architecture& a) {
    return bias(a.head.names.hugging_face + ".bias", a.vocab_size, true);
  }

  at::Tensor vector(const std::string& tensor, int64_t size) {
    return read(tensor, {size}).to(device_, at::kFloat);
  }

  // Outside of the blocks; empty where there is none.
  lora::NormWeight outer_norm(const NormSpec& spec) {
    return spec.present() ? norm(spec.names.hugging_face, spec) : lora::NormWeight();
  }

  lora::NormWeight norm(const std::string& module, const NormSpec& spec) {
    const auto part = [&](const char* suffix) {
      return read(module + suffix, spec.shape()).to(device_, at::kFloat);
    };
    lora::NormWeight norm;
    if (spec.by_group && !source_.has(module + ".weight"))
      norm.frozen = stacked(module, spec);
    else if (spec.weight)
      norm.frozen = part(".weight");
    if (spec.bias)
      norm.frozen_bias =
          lies_there(module + ".bias")
              ? part(".bias")
              : at::zeros(spec.shape(), at::TensorOptions().dtype(at::kFloat).device(device_));
    for (int64_t group = 0; spec.by_group && group < spec.groups; ++group)
      norm.row_names.push_back(spec.tensor(module, group));
    return norm;
  }

  lora::LoraLinear linear(const std::string& name, const LinearSpec& spec) {
    lora::LoraLinear layer = read_linear(name, spec);
    progress_.advance();
    return layer;
  }
  // Of a block, whose matrices are counted when they have been changed, if they are.
  lora::LoraLinear block_linear(const std::string& name, const LinearSpec& spec) {
    if (counts_blocks_) return linear(name, spec);
    progress_.leave_if_stop_wanted();
    return read_linear(name, spec);
  }

 private:
  lora::LoraLinear read_linear(const std::string& name, const LinearSpec& spec) {
    lora::LoraLinear layer;
    layer.name = name;
    layer.stored_by_inputs = spec.stored_by_inputs;
    layer.base = offload_ && offload_->in_float32() ? in_float32(name, spec) : weight(name, spec);
    if (offload_) layer.base = offload_->placed(name, std::move(layer.base));
    layer.bias = bias(name + ".bias", spec.out, spec.bias, spec.needs_bias);
    return layer;
  }

  std::unique_ptr<quant::FrozenWeight> weight(const std::string& name, const LinearSpec& spec) {
    auto packed = source_.read_packed(name, spec.out, spec.in, quantization_, device_);
    if (packed) return packed;
    const at::Tensor values = matrix(name + ".weight", spec.out, spec.in);
    if (make_ && !spec.never_quantized) return make_(name, values);
    return quant::make_frozen_weight(values, quantization_of_layer(spec, quantization_), name);
  }

  // As the file has it, whatever model.dtype is.
  std::unique_ptr<quant::FrozenWeight> in_float32(const std::string& name, const LinearSpec& spec) {
    return std::make_unique<quant::DenseWeight>(
        source_.read(name + ".weight", {spec.out, spec.in}, at::kFloat).contiguous());
  }

  // The weights of all groups, [groups, size].
  at::Tensor stacked(const std::string& module, const NormSpec& spec) {
    std::vector<at::Tensor> rows;
    for (int64_t group = 0; group < spec.groups; ++group)
      rows.push_back(read(spec.tensor(module, group), {spec.size}));
    return at::stack(rows).to(device_, at::kFloat);
  }

  // A bias that the configuration promises is zero where the file has none, as in transformers;
  // one that is there is read in any case. `needed`: LinearSpec::needs_bias.
  at::Tensor bias(const std::string& name, int64_t size, bool promised, bool needed = false) {
    if (needed || (promised ? lies_there(name) : source_.has(name)))
      return read(name, {size}).to(device_);
    if (!promised) return {};
    return at::zeros({size}, at::TensorOptions().dtype(dtype_).device(device_));
  }

  // Whether the file has a bias that the model has; warn_about_zeros() tells of one that it has
  // not.
  bool lies_there(const std::string& bias) {
    if (source_.has(bias)) return true;
    zeros_.push_back(bias);
    return false;
  }

  at::Tensor matrix(const std::string& name, int64_t rows, int64_t columns) {
    return read(name, {rows, columns}).to(device_);
  }

  at::Tensor read(const std::string& name, const std::vector<int64_t>& shape) {
    return source_.read(name, shape, source_.dtype_of(name, dtype_));
  }

  WeightSource& source_;
  at::ScalarType dtype_;
  const quant::QuantizationOptions& quantization_;
  at::Device device_;
  const WeightMaker& make_;
  BlockOffload* offload_;           // null: all weights stay
  std::vector<std::string> zeros_;  // biases
  const bool counts_blocks_;
  Progress progress_;
};

Block load_block(Loader& load, const Architecture& a, int64_t layer) {
  const BlockSpec& spec = a.block(layer);
  const auto linear = [&](const LinearSpec& of) {
    return load.block_linear(a.module(layer, of.names), of);
  };
  Block block;
  block.branches.resize(spec.branches.size());
  visit_norms(spec, block, [&](const NormSpec& of, lora::NormWeight& norm) {
    norm = load.norm(a.module(layer, of.names), of);
  });
  for (size_t b = 0; b < spec.branches.size(); ++b) {
    const Branch& branch = spec.branches[b];
    std::vector<lora::LinearGroup> groups;
    for (const std::vector<LinearSpec>& group : branch.groups()) {
      std::vector<lora::LoraLinear> layers;
      for (const LinearSpec& of : group) layers.push_back(linear(of));
      groups.emplace_back(std::move(layers));
    }
    block.branches[b].set_groups(branch, std::move(groups));
    if (const AttentionSpec* attention = branch.attention(); attention && attention->shape.sinks)
      block.branches[b].sinks =
          load.vector(a.module(layer, attention->sinks), attention->shape.heads);
  }
  return block;
}

// Of a layer outside of the blocks; without layers where there is none.
lora::LinearGroup load_projection(Loader& load, const LinearSpec& spec) {
  if (!spec.present()) return {};
  std::vector<lora::LoraLinear> layer;
  layer.push_back(load.linear(spec.names.hugging_face, spec));
  return lora::LinearGroup(std::move(layer));
}

void warn_about_unread(const WeightSource& source) {
  const std::vector<std::string> names = source.unread();
  if (names.empty()) return;
  const size_t shown = std::min<size_t>(names.size(), 3);
  log::warning("{}: {} tensors are no part of this architecture and were left out: {}{}",
               source.place(), names.size(),
               fmt::join(names.begin(), names.begin() + static_cast<ptrdiff_t>(shown), ", "),
               shown < names.size() ? ", ..." : "");
}

}  // namespace

at::ScalarType dtype_from_string(const std::string& name, const std::string& key) {
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float16") return at::kHalf;
  if (name == "float32") return at::kFloat;
  fail<ConfigError>("{} must be bfloat16, float16 or float32, found '{}'", key, name);
}

at::ScalarType resolved_dtype(const std::string& dtype, const WeightSource& source) {
  return dtype == "auto" ? source.dtype() : dtype_from_string(dtype, "model.dtype");
}

namespace {
// Autograd has a thread of its own for a GPU, to which the first kernel launched there gives the
// GPU's context. A first call of cuBLAS would do so too, but with a warning on the terminal.
void wake_autograd(at::Device device) {
  if (!device.is_cuda()) return;
  at::AutoGradMode with_grad(true);
  at::zeros({1}, at::TensorOptions().device(device)).requires_grad_(true).square().backward();
}

// Everything but the blocks.
std::unique_ptr<CausalLm> load_outer(Loader& load, const Architecture& a,
                                     const ModelOptions& options, at::ScalarType dtype,
                                     at::Device device, at::ScalarType compute) {
  auto model = std::make_unique<CausalLm>(a, device, compute);
  if (options.upcast == "all") model->upcast_from = dtype;
  const auto outer = [&](const TensorNames& names) {
    at::Tensor matrix = load.outer(names, a);
    return model->upcast_from ? matrix.to(at::kFloat) : matrix;
  };
  model->embedding = outer(a.embedding.names);
  if (a.embedding.positions.present()) model->positions = load.positions(a);
  model->embedding_norm = load.outer_norm(a.embedding.norm);
  model->projection = load_projection(load, a.embedding.projection);
  model->head_projection = load_projection(load, a.head_projection);
  model->encoder_bias.table = load.relative_table(a.encoder.relative_bias);
  model->decoder_bias.table = load.relative_table(a.decoder.relative_bias);
  model->encoder_norm = load.outer_norm(a.encoder.final_norm);
  model->final_norm = load.outer_norm(a.decoder.final_norm);
  at::Tensor bias = a.head.bias ? load.head_bias(a) : at::Tensor();
  if (bias.defined() && model->upcast_from) bias = bias.to(at::kFloat);
  std::unique_ptr<quant::FrozenWeight> head =
      a.tied_embeddings ? std::make_unique<quant::DenseWeight>(model->embedding.weight)
                        : load.packed_head(a);
  if (!head) head = std::make_unique<quant::DenseWeight>(outer(a.head.names));
  model->set_head(std::move(head), bias);
  return model;
}
}  // namespace

std::unique_ptr<CausalLm> load_model(WeightSource& source, const ModelOptions& options,
                                     const quant::QuantizationOptions& quantization,
                                     at::Device device, at::ScalarType compute,
                                     const WeightMaker& make, const Placement& placement,
                                     const std::shared_ptr<quant::ShardGroup>& ranks) {
  wake_autograd(device);
  at::NoGradGuard no_grad;
  const at::ScalarType dtype = resolved_dtype(options.dtype, source);
  const Architecture& a = source.architecture();
  BlockOffload offload(source, options, quantization, dtype, device, compute, placement, ranks);
  Loader load(source, dtype, quantization, device, make, false, &offload);
  auto model = load_outer(load, a, options, dtype, device, compute);
  offload.place_outer(*model);
  model->placement = placement;
  model->offload = offload.offload();
  for (int64_t layer = 0; layer < a.num_layers(); ++layer) {
    offload.begin_block(layer);
    model->layers.push_back(load_block(load, a, layer));
    offload.end_block(*model);
  }
  load.warn_about_zeros();
  warn_about_unread(source);
  io::require_mapped_unchanged();  // it takes minutes to read a large model
  return model;
}

std::unique_ptr<CausalLm> load_without_blocks(WeightSource& source, const ModelOptions& options,
                                              at::Device device, at::ScalarType compute) {
  at::NoGradGuard no_grad;
  const at::ScalarType dtype = resolved_dtype(options.dtype, source);
  const Architecture& a = source.architecture();
  quant::QuantizationOptions none;
  none.method = "none";
  const WeightMaker as_it_is;
  Loader load(source, dtype, none, device, as_it_is);
  auto model = load_outer(load, a, options, dtype, device, compute);
  model->layers.resize(static_cast<size_t>(a.num_layers()));
  return model;
}

Architecture stream_model(WeightSource& source, const ModelOptions& options,
                          const quant::QuantizationOptions& quantization, at::Device device,
                          const WeightMaker& make,
                          const std::function<void(const StreamedPart&)>& take,
                          const BlockChange& change) {
  at::NoGradGuard no_grad;
  const at::ScalarType dtype = resolved_dtype(options.dtype, source);
  const Architecture& a = source.architecture();
  Loader load(source, dtype, quantization, device, make, static_cast<bool>(change));
  const auto take_outer = [&](const TensorNames& names) {
    take({{{names.hugging_face + ".weight", load.outer(names, a)}}});
  };
  const auto take_norm = [&](const NormSpec& norm) {
    if (!norm.present()) return;
    StreamedPart part;
    append_norm(norm.names.hugging_face, norm, load.outer_norm(norm), part.tensors);
    take(part);
  };
  take_outer(a.embedding.names);
  if (a.embedding.positions.present())
    take({{{a.embedding.positions.names.hugging_face + ".weight", load.positions(a)}}});
  take_norm(a.embedding.norm);
  for (const LinearSpec* projection : {&a.embedding.projection, &a.head_projection})
    if (const lora::LinearGroup group = load_projection(load, *projection);
        !group.layers().empty()) {
      StreamedPart part;
      append_linear(group.layers().front(), part.tensors);
      part.groups.push_back(&group);
      take(part);
    }
  for (const StackSpec* stack : {&a.encoder, &a.decoder})
    if (const RelativeBiasSpec& bias = stack->relative_bias; bias.present())
      take({{{bias.tensor(), load.relative_table(bias)}}});
  take_norm(a.encoder.final_norm);
  take_norm(a.decoder.final_norm);
  if (!a.tied_embeddings) {
    lora::LoraLinear head;
    head.name = a.head.names.hugging_face;
    head.base = load.packed_head(a);
    if (head.base) {
      StreamedPart part;
      append_linear(head, part.tensors);
      take(part);
    } else {
      take_outer(a.head.names);
    }
  }
  if (a.head.bias) take({{{a.head.names.hugging_face + ".bias", load.head_bias(a)}}});
  for (int64_t layer = 0; layer < a.num_layers(); ++layer) {
    Block block = load_block(load, a, layer);
    if (change) change(layer, block, load.progress());
    take({block.frozen_state(a, layer), std::as_const(block).groups(), &block});
  }
  load.warn_about_zeros();
  warn_about_unread(source);
  io::require_mapped_unchanged();
  return a;
}

std::string describe(const CausalLm& model) {
  struct Share {
    int64_t layers = 0, bytes = 0;
  };
  std::map<std::string, Share> shares;
  const at::Tensor& embedding = model.embedding.weight;
  int64_t weights = embedding.numel();
  for (const lora::LinearGroup* group : model.groups())
    for (const lora::LoraLinear& linear : group->layers()) {
      Share& share = shares[linear.base->format()];
      ++share.layers;
      share.bytes += linear.base->bytes();
      weights += linear.in_features() * linear.out_features();
    }
  int64_t rest = static_cast<int64_t>(embedding.nbytes());
  if (model.positions.defined()) {
    rest += static_cast<int64_t>(model.positions.nbytes());
    weights += model.positions.numel();
  }
  if (!model.architecture().tied_embeddings) {
    rest += model.head.layers().front().base->bytes();
    weights += embedding.numel();
  }
  std::string text = fmt::format("{:.1f} M weights", static_cast<double>(weights) / 1e6);
  for (const auto& [format, share] : shares)
    text += fmt::format(", {} linear layers in {}: {:.0f} MB", share.layers, format,
                        static_cast<double>(share.bytes) / 1e6);
  text += fmt::format(", embeddings: {:.0f} MB", static_cast<double>(rest) / 1e6);
  const std::string places = model.placement.to_text();
  return places.empty() ? text : text + "; " + places;
}

}  // namespace qlora::model
