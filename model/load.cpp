#include "model/load.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>

#include <map>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "quant/make_frozen_weight.h"

namespace qlora::model {
namespace {

constexpr int64_t kMatricesOfALayer = 7;

int64_t num_matrices(const ModelConfig& config) {
  return config.num_layers * kMatricesOfALayer + (config.tied_embeddings ? 1 : 2);
}

std::string phase_of(const WeightSource& source, const quant::QuantizationOptions& quantization) {
  const bool quantizes = quantization.method != "none" && quantization.method != "as_stored";
  return (quantizes ? "reading and quantizing " : "reading ") + source.place();
}

// The decoder's parts by their Hugging Face names, read in the order of the layers. Left between
// two matrices if a stop is wanted.
class Loader {
 public:
  Loader(WeightSource& source, at::ScalarType dtype, const quant::QuantizationOptions& quantization,
         at::Device device, const WeightMaker& make)
      : source_(source),
        dtype_(dtype),
        quantization_(quantization),
        device_(device),
        make_(make),
        progress_(phase_of(source, quantization), num_matrices(source.config()), "matrices") {}

  // The embedding or the head.
  at::Tensor outer(const std::string& name, const ModelConfig& c) {
    at::Tensor weight = matrix(name, c.vocab_size, c.hidden_size);
    progress_.advance();
    return weight;
  }

  at::Tensor norm(const std::string& name, int64_t size) {
    return source_.read(name, {size}, dtype_).to(device_, at::kFloat);
  }

  // `with_bias`: the configuration promises one, which is zero where the file has none, as in
  // transformers; one that is there is read in any case.
  lora::LoraLinear linear(const std::string& name, int64_t out, int64_t in, bool with_bias) {
    lora::LoraLinear layer;
    layer.name = name;
    layer.base = source_.read_packed(name, out, in, quantization_, device_);
    if (!layer.base) {
      const at::Tensor weight = matrix(name + ".weight", out, in);
      layer.base =
          make_ ? make_(name, weight) : quant::make_frozen_weight(weight, quantization_, name);
    }
    layer.bias = bias(name + ".bias", out, with_bias);
    progress_.advance();
    return layer;
  }

 private:
  at::Tensor bias(const std::string& name, int64_t size, bool promised) {
    if (source_.has(name)) return source_.read(name, {size}, dtype_).to(device_);
    if (!promised) return {};
    if (!told_of_zeros_)
      log::warning("{}: there is no {}; it is taken as zero", source_.place(), name);
    told_of_zeros_ = true;
    return at::zeros({size}, at::TensorOptions().dtype(dtype_).device(device_));
  }

  at::Tensor matrix(const std::string& name, int64_t rows, int64_t columns) {
    return source_.read(name, {rows, columns}, dtype_).to(device_);
  }

  WeightSource& source_;
  at::ScalarType dtype_;
  const quant::QuantizationOptions& quantization_;
  at::Device device_;
  const WeightMaker& make_;
  bool told_of_zeros_ = false;
  Progress progress_;
};

template <typename... Layers>
lora::LinearGroup group_of(Layers... layers) {
  std::vector<lora::LoraLinear> all;
  (all.push_back(std::move(layers)), ...);
  return lora::LinearGroup(std::move(all));
}

DecoderLayer load_layer(Loader& load, const ModelConfig& c, int64_t index) {
  const std::string layer = fmt::format("model.layers.{}.", index);
  const std::string attention = layer + "self_attn.", mlp = layer + "mlp.";
  const int64_t queries = c.num_heads * c.head_dim, keys = c.num_kv_heads * c.head_dim;
  const int64_t hidden = c.hidden_size, inner = c.intermediate_size;
  const bool bias = c.attention_bias;
  DecoderLayer result;
  result.input_norm = load.norm(layer + "input_layernorm.weight", hidden);
  lora::LoraLinear q = load.linear(attention + "q_proj", queries, hidden, bias);
  lora::LoraLinear k = load.linear(attention + "k_proj", keys, hidden, bias);
  lora::LoraLinear v = load.linear(attention + "v_proj", keys, hidden, bias);
  result.qkv = group_of(std::move(q), std::move(k), std::move(v));
  result.o = group_of(load.linear(attention + "o_proj", hidden, queries, bias));
  result.post_attention_norm = load.norm(layer + "post_attention_layernorm.weight", hidden);
  lora::LoraLinear gate = load.linear(mlp + "gate_proj", inner, hidden, c.mlp_bias);
  lora::LoraLinear up = load.linear(mlp + "up_proj", inner, hidden, c.mlp_bias);
  result.gate_up = group_of(std::move(gate), std::move(up));
  result.down = group_of(load.linear(mlp + "down_proj", hidden, inner, c.mlp_bias));
  return result;
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
}  // namespace

std::unique_ptr<CausalLm> load_model(WeightSource& source, const ModelOptions& options,
                                     const quant::QuantizationOptions& quantization,
                                     at::Device device, at::ScalarType compute,
                                     const WeightMaker& make) {
  wake_autograd(device);
  at::NoGradGuard no_grad;
  const at::ScalarType dtype = resolved_dtype(options.dtype, source);
  const ModelConfig& config = source.config();
  auto model = std::make_unique<CausalLm>(config, device, compute);
  Loader load(source, dtype, quantization, device, make);
  if (options.upcast == "all") model->upcast_from = dtype;
  const auto outer = [&](const char* name) {
    at::Tensor matrix = load.outer(name, config);
    return model->upcast_from ? matrix.to(at::kFloat) : matrix;
  };
  model->embedding = outer("model.embed_tokens.weight");
  model->final_norm = load.norm("model.norm.weight", config.hidden_size);
  if (config.tied_embeddings) {
    model->set_head(std::make_unique<quant::DenseWeight>(model->embedding.weight));
  } else {
    model->set_head(std::make_unique<quant::DenseWeight>(outer("lm_head.weight")));
  }
  for (int64_t i = 0; i < config.num_layers; ++i)
    model->layers.push_back(load_layer(load, config, i));
  warn_about_unread(source);
  return model;
}

ModelConfig stream_model(WeightSource& source, const ModelOptions& options,
                         const quant::QuantizationOptions& quantization, at::Device device,
                         const WeightMaker& make,
                         const std::function<void(const StreamedPart&)>& take) {
  at::NoGradGuard no_grad;
  const at::ScalarType dtype = resolved_dtype(options.dtype, source);
  const ModelConfig& config = source.config();
  Loader load(source, dtype, quantization, device, make);
  const auto take_outer = [&](const std::string& name) {
    take({{{name, load.outer(name, config)}}});
  };
  take_outer("model.embed_tokens.weight");
  take({{{"model.norm.weight", load.norm("model.norm.weight", config.hidden_size)}}});
  if (!config.tied_embeddings) take_outer("lm_head.weight");
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const DecoderLayer layer = load_layer(load, config, i);
    take({layer.frozen_state(i), &layer});
  }
  warn_about_unread(source);
  return config;
}

std::string describe(const CausalLm& model) {
  struct Share {
    int64_t layers = 0, bytes = 0;
  };
  std::map<std::string, Share> shares;
  const at::Tensor& embedding = model.embedding.weight;
  int64_t weights = embedding.numel();
  for (const DecoderLayer& layer : model.layers)
    for (const lora::LinearGroup* group : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down})
      for (const lora::LoraLinear& linear : group->layers()) {
        Share& share = shares[linear.base->format()];
        ++share.layers;
        share.bytes += linear.base->bytes();
        weights += linear.in_features() * linear.out_features();
      }
  int64_t rest = static_cast<int64_t>(embedding.nbytes());
  if (!model.config().tied_embeddings) {
    rest += model.head.layers().front().base->bytes();
    weights += embedding.numel();
  }
  std::string text = fmt::format("{:.1f} M weights", static_cast<double>(weights) / 1e6);
  for (const auto& [format, share] : shares)
    text += fmt::format(", {} linear layers in {}: {:.0f} MB", share.layers, format,
                        static_cast<double>(share.bytes) / 1e6);
  return text + fmt::format(", embeddings: {:.0f} MB", static_cast<double>(rest) / 1e6);
}

}  // namespace qlora::model
