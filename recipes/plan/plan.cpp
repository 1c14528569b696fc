#include "recipes/plan/plan.h"
#include "recipes/given_adapter.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>

#include "base/error.h"
#include "data/cache/cached_dataset.h"
#include "data/shards.h"
#include "lora/adapter_file.h"
#include "lora/adapter_fit.h"
#include "model/expert_targets.h"
#include "model/expert_tensors.h"
#include "model/layer_quantization.h"
#include "model/load.h"
#include "quant/formats/gguf_weight.h"
#include "quant/formats/mxfp4_weight.h"
#include "quant/frozen_size.h"
#include "recipes/models/compute_dtype.h"
#include "recipes/models/model_dtype.h"
#include "recipes/plan/placement.h"
#include "trainer/memory_fit.h"
#include "trainer/run_time.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

// Of the tokenizer, an entry of the vocabulary (measured). Of rows in memory, a byte of their file:
// a token is four or five letters there, and takes four bytes and one of the mask.
constexpr int64_t kBytesAToken = 480, kRowBytesAByte = 1;

// Of all files of rows that are there.
int64_t file_bytes(const Recipe& recipe) {
  int64_t bytes = 0;
  for (const auto* sets : {&recipe.data.train, &recipe.data.eval})
    for (const data::DatasetOptions& set : *sets) bytes += data::estimated_text_bytes(set);
  return bytes;
}

// Of rows that are kept in memory; those on disk take none that the system could not take back.
int64_t row_bytes(const Recipe& recipe) {
  int64_t bytes = 0;
  for (const auto* sets : {&recipe.data.train, &recipe.data.eval})
    for (const data::DatasetOptions& set : *sets)
      if (!data::lies_on_disk(set, recipe.data))
        bytes += kRowBytesAByte * data::estimated_text_bytes(set);
  return bytes;
}

int64_t host_bytes(const Recipe& recipe, int64_t vocabulary) {
  return vocabulary * kBytesAToken + row_bytes(recipe);
}

// While lora.from_adapter is read. A run that is evaluated or exported needs it no more, and it may
// be gone. `stored`: the type in which the base's files have the embedding.
int64_t adapter_reading_bytes(const Recipe& recipe, const model::Architecture& architecture,
                              at::ScalarType stored) {
  const fs::path adapter = recipe.lora.from_adapter;
  if (adapter.empty() || !has_given_adapter(recipe) || !fs::exists(adapter / lora::kAdapterTensors))
    return 0;
  return lora::reading_bytes(adapter.string(), recipe.lora, architecture.embedding_names(),
                             architecture.vocab_size * architecture.embedding.width *
                                 static_cast<int64_t>(c10::elementSize(stored)));
}

trainer::PlannedRun common(const Recipe& recipe, const model::Architecture& architecture,
                           const std::string& dtype, bool on_gpu, int ranks) {
  trainer::PlannedRun run;
  run.on_gpu = on_gpu;
  run.ranks = ranks;
  run.micro_batches_a_rank = micro_batches_a_rank(recipe, ranks);
  run.architecture = architecture;
  run.model = recipe.model;
  run.model.dtype = dtype;
  run.lora = recipe.lora;
  model::resolve_expert_targets(architecture, run.lora);
  run.optim = recipe.optim;
  const at::Device device = on_gpu ? at::kCUDA : at::kCPU;
  run.compute = compute_dtype_of(recipe.train.compute_dtype, device);
  run.narrow_gates = keeps_narrow_gates(recipe.train.compute_dtype, device);
  run.recompute_layers =
      trainer::recomputed_layers(recipe.train.gradient_checkpointing, architecture.num_layers());
  // What the reference says of the rows is found as an evaluation is.
  run.evaluates =
      !recipe.data.eval.empty() || recipe.data.eval_fraction > 0 || recipe.train.objective == "dpo";
  run.pairs = recipe.data.has_pairs();
  run.micro_batch_size = recipe.train.micro_batch_size;
  run.sequence_length = recipe.data.sequence_length;
  run.host_bytes = host_bytes(recipe, architecture.vocab_size);
  // Tokens that are named by their spelling count as rows; which rows does not matter here.
  auto& tokens = run.lora.trainable_token_indices;
  for (int64_t id = architecture.vocab_size - 1; !run.lora.trainable_tokens.empty() && id >= 0;
       --id)
    if (auto& ids = tokens["embed_tokens"]; std::ranges::find(ids, id) == ids.end()) {
      ids.push_back(id);
      run.lora.trainable_tokens.pop_back();
    }
  return run;
}

// The blocks in which a GGUF file packs a module, if it stays in them.
std::optional<io::DType> kept_blocks(const Recipe& recipe, const model::ModelHeader& header,
                                     const std::string& module) {
  if (recipe.quantization.method != "as_stored" || !header.weights) return std::nullopt;
  const std::string packing = header.weights->packing(module);
  for (int i = static_cast<int>(io::DType::kQ4_0); i <= static_cast<int>(io::DType::kMXFP4); ++i)
    if (const auto type = static_cast<io::DType>(i); io::dtype_name(type) == packing) return type;
  return std::nullopt;
}

// Whether an expert's matrix [out, in] stays in MXFP4. Without the files every expert is taken to
// lie so if config.json names the format.
bool stays_mxfp4(const Recipe& recipe, const model::ModelHeader& header, const std::string& module,
                 int64_t out, int64_t in) {
  if (recipe.quantization.method != "as_stored") return false;
  if (header.weights) {
    const auto size = header.weights->packed_size(module, out, in, recipe.quantization);
    return size && size->format == quant::mxfp4_size(out, in).format;
  }
  return header.mxfp4_experts && model::expert_tensor(header.architecture, module + ".weight");
}

// A layer that another tool packed in a format that this program does not make. Without the files
// every linear layer of the blocks is taken to be packed.
std::optional<quant::FrozenSize> packed_size(const Recipe& recipe, const model::ModelHeader& header,
                                             const std::string& module,
                                             const model::LinearSpec& linear) {
  if (stays_mxfp4(recipe, header, module, linear.out, linear.in))
    return quant::mxfp4_size(linear.out, linear.in);
  if (!header.stored || header.stored->options()) return std::nullopt;
  if (header.weights)
    return header.weights->packed_size(module, linear.out, linear.in, recipe.quantization);
  if (linear.never_quantized || module == header.architecture.head.names.hugging_face)
    return std::nullopt;
  return header.stored->size(module, quant::WeightShape::matrix(linear.out, linear.in));
}

}  // namespace

quant::QuantizationOptions quantization_of(const Recipe& recipe, const model::ModelHeader& header) {
  if (!header.stored) return recipe.quantization;
  header.stored->require(recipe.quantization, header.place);
  if (!header.stored->options()) return recipe.quantization;
  quant::QuantizationOptions stored = *header.stored->options();
  if (recipe.quantization.method == "int8_weight_only") stored.method = "int8_weight_only";
  return stored;
}

std::function<quant::WeightBytes(const std::string& module, const model::LinearSpec& linear)>
planned_weights(const Recipe& recipe, const model::ModelHeader& header) {
  const quant::QuantizationOptions options = quantization_of(recipe, header);
  const at::ScalarType dense =
      model::dtype_from_string(resolved_model_dtype(recipe, header), "model.dtype");
  return [&recipe, &header, options, dense](const std::string& module,
                                            const model::LinearSpec& linear) {
    if (const auto type = kept_blocks(recipe, header, module))
      return quant::planned_block_bytes(*type, linear.out, linear.in);
    if (const auto size = packed_size(recipe, header, module, linear))
      return quant::by_purpose(*size);
    const at::ScalarType type =
        header.weights ? header.weights->dtype_of(module + ".weight", dense) : dense;
    return quant::planned_weight_bytes(model::quantization_of_layer(linear, options), module,
                                       linear.out, linear.in, type);
  };
}

int64_t micro_batches_a_rank(const Recipe& recipe, int ranks) {
  const int64_t micro_batches = recipe.train.gradient_accumulation_steps;
  if (micro_batches % ranks != 0)
    fail<ConfigError>(
        "train.gradient_accumulation_steps is {} and there are {} ranks, which share the "
        "micro-batches of a step; set it to a multiple of {}, with train.micro_batch_size smaller "
        "in return",
        micro_batches, ranks, ranks);
  return micro_batches / ranks;
}

void require_offload_of(const Recipe& recipe, const model::ModelHeader& header) {
  if (recipe.quantization.fp32_cpu_offload && header.stored)
    fail<ConfigError>(
        "quantization.fp32_cpu_offload: {} holds weights that are quantized already; give the "
        "model in 16 or 32 bits",
        header.place);
}

trainer::PlannedRun planned_run(const Recipe& recipe, const model::ModelHeader& header, bool on_gpu,
                                int ranks, int ranks_here) {
  require_offload_of(recipe, header);
  const std::string dtype = resolved_model_dtype(recipe, header);
  trainer::PlannedRun run = common(recipe, header.architecture, dtype, on_gpu, ranks);
  run.adapter_reading_bytes = adapter_reading_bytes(
      recipe, header.architecture, model::dtype_from_string(header.dtype, "model.dtype"));
  run.weight = planned_weights(recipe, header);
  run.placement = placement_of(recipe, run, ranks_here > 0 ? ranks_here : ranks);
  return run;
}

trainer::PlannedRun planned_run(const Recipe& recipe, const model::CausalLm& model,
                                int64_t sequence_length, int ranks) {
  const at::ScalarType dtype = model.upcast_from.value_or(model.embedding.weight.scalar_type());
  trainer::PlannedRun run = common(recipe, model.architecture(), quant::dense_format(dtype),
                                   model.device().is_cuda(), ranks);
  run.compute = model.compute_dtype();
  run.narrow_gates = model.narrow_gates;
  run.sequence_length = sequence_length;
  run.adapter_reading_bytes = adapter_reading_bytes(recipe, model.architecture(), dtype);
  std::map<std::string, quant::WeightBytes> loaded;
  for (const lora::LinearGroup* group : model.groups())
    for (const lora::LoraLinear& linear : group->layers())
      loaded[linear.name] = quant::loaded_weight_bytes(*linear.base);
  run.weight = [loaded](const std::string& module, const model::LinearSpec&) {
    return loaded.at(module);
  };
  run.placement = model.placement;
  return run;
}

std::string weights_file(const model::ModelHeader& header) {
  if (!header.weights) return "";
  if (!fs::is_directory(header.place)) return header.place;
  std::string largest;
  uintmax_t most = 0;
  for (const auto& entry : fs::directory_iterator(header.place)) {
    const std::string extension = entry.path().extension().string();
    if ((extension != ".safetensors" && extension != ".bin") || !entry.is_regular_file()) continue;
    if (entry.file_size() <= most) continue;
    most = entry.file_size();
    largest = entry.path().string();
  }
  return largest;
}

double reference_seconds(const Recipe& recipe, const trainer::TimePlan& time,
                         const std::optional<CachedRows>& rows) {
  constexpr double kBytesOfText = 4;  // a token; the prompt of a pair is passed twice
  if (recipe.train.objective != "dpo" || time.tokens_a_second <= 0) return 0;
  const double tokens = rows ? static_cast<double>(rows->tokens)
                             : static_cast<double>(file_bytes(recipe)) / kBytesOfText;
  return trainer::kForwardShare * tokens / time.tokens_a_second;
}

model::PackedMaker packed_maker(const Recipe& recipe, const model::ModelHeader& header) {
  if (header.weights && header.stored && !header.stored->options())
    return
        [&recipe, &header](const std::string& module, int64_t out, int64_t in, at::Device device) {
          return header.weights->read_packed(module, out, in, recipe.quantization, device);
        };
  if (header.mxfp4_experts && recipe.quantization.method == "as_stored")
    return [&recipe, &header](const std::string& module, int64_t out, int64_t in,
                              at::Device device) -> std::unique_ptr<quant::FrozenWeight> {
      if (!stays_mxfp4(recipe, header, module, out, in)) return nullptr;
      const quant::FrozenSize size = quant::mxfp4_size(out, in);
      const auto options = at::TensorOptions().dtype(at::kByte).device(device);
      return std::make_unique<quant::Mxfp4Weight>(
          at::zeros({out, (size.bytes - size.scale_bytes) / out}, options),
          at::zeros({out, size.scale_bytes / out}, options));
    };
  if (std::ranges::none_of(header.architecture.linear_modules(), [&](const std::string& module) {
        return kept_blocks(recipe, header, module).has_value();
      }))
    return {};
  return [&recipe, &header](const std::string& module, int64_t out, int64_t in,
                            at::Device device) -> std::unique_ptr<quant::FrozenWeight> {
    const auto type = kept_blocks(recipe, header, module);
    if (!type) return nullptr;
    const int64_t row = in / io::elements_per_block(*type) * io::bytes_per_block(*type);
    const auto options = at::TensorOptions().dtype(at::kByte).device(device);
    return std::make_unique<quant::GgufWeight>(at::zeros({out, row}, options), *type, in);
  };
}

}  // namespace qlora::recipes
