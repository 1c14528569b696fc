#include "export/gguf_model.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "base/error.h"
#include "base/progress.h"
#include "data/chat_renderer.h"
#include "data/tokenizers/gguf_tokenizer_metadata.h"
#include "export/gguf_origin.h"
#include "export/gguf_parts.h"
#include "export/weight_files.h"
#include "io/atomic_write.h"
#include "io/gguf.h"
#include "quant/gguf/gguf_quantize.h"

namespace qlora::exporting {
namespace {
namespace fs = std::filesystem;

constexpr uint64_t kQuantizationVersion = 2;  // of the block formats
constexpr double kLargestHalf = 65504;

data::GgufTokenizerOptions tokenizer_options(const model::Architecture& model,
                                             const data::Tokenizer& tokenizer,
                                             const data::ChatTemplate* chat_template) {
  data::GgufTokenizerOptions options;
  options.rows = model.vocab_size;
  options.chat_template = chat_template ? chat_template->source() : tokenizer.chat_template();
  options.tool_use_template =
      chat_template ? chat_template->tool_use_source() : tokenizer.tool_use_template();
  if (chat_template) options.ends = data::ends_of_turn(tokenizer, *chat_template);
  const auto& known = tokenizer.special_tokens().end_of_generation;
  options.ends.insert(options.ends.end(), known.begin(), known.end());
  return options;
}

model::GgufMetadata metadata_of(const model::GgufDescription& description,
                                const data::Tokenizer& tokenizer,
                                const data::ChatTemplate* chat_template, const std::string& base,
                                const GgufType& type) {
  model::GgufMetadata all = {{"general.architecture", description.architecture},
                             {"general.type", std::string("model")},
                             {"general.file_type", static_cast<uint64_t>(type.number)}};
  if (type.is_quantized()) all.emplace_back("general.quantization_version", kQuantizationVersion);
  const auto append = [&all](const model::GgufMetadata& more) {
    all.insert(all.end(), more.begin(), more.end());
  };
  append(gguf_origin(base));
  append(description.metadata);
  append(data::gguf_tokenizer_metadata(
      tokenizer, tokenizer_options(description.model, tokenizer, chat_template)));
  return all;
}

model::GgufDescription description_of(const model::CausalLm& model) {
  model::Architecture architecture = model.architecture();
  architecture.tied_embeddings = model.embeddings_still_tied();
  return model::describe_for_gguf(architecture);
}

// RoPE's own tensors behind the model's.
std::vector<GgufPart> all_parts(const model::CausalLm& model,
                                const model::GgufDescription& description,
                                model::WeightSource* original) {
  std::vector<GgufPart> parts = gguf_parts(model, description, original);
  for (const auto& [name, values] : description.tensors)
    parts.push_back(
        {name, {static_cast<int64_t>(values.size())}, [values] { return at::tensor(values); }});
  return parts;
}

uint64_t bytes_of(const io::TensorView& header) {
  return static_cast<uint64_t>(header.num_elements() / io::elements_per_block(header.dtype) *
                               io::bytes_per_block(header.dtype));
}

// The bytes of a tensor as the file has them.
std::vector<std::byte> encoded(const io::TensorView& header, const at::Tensor& value) {
  const at::Tensor floats = stored_value(header.name, value, at::kFloat);
  if (header.dtype == io::DType::kF16) {
    const auto [smallest, largest] = at::aminmax(floats);
    check(std::max(-smallest.item<double>(), largest.item<double>()) <= kLargestHalf,
          "the weight {} does not fit into f16; export with --type bf16", header.name);
  }
  std::vector<std::byte> bytes(bytes_of(header));
  quant::quantize_gguf_blocks(header.dtype, floats.const_data_ptr<float>(), floats.numel(),
                              bytes.data());
  return bytes;
}

}  // namespace

void write_gguf_model(const std::string& path, const model::CausalLm& model,
                      const data::Tokenizer& tokenizer, const data::ChatTemplate* chat_template,
                      const std::string& name, const GgufType& type,
                      model::WeightSource* original) {
  at::NoGradGuard no_grad;
  const model::GgufDescription description = description_of(model);
  const std::vector<GgufPart> parts = all_parts(model, description, original);
  const GgufTypes types(type, description);
  std::vector<io::TensorView> headers;
  uint64_t total = 0;
  for (const GgufPart& part : parts) {
    io::TensorView header;
    header.name = part.name;
    header.shape = part.shape;
    header.dtype = types.of(part.name, part.shape);
    total += bytes_of(header);
    headers.push_back(std::move(header));
  }
  io::require_free_space(fs::path(path).parent_path().string(), total, "the GGUF file");
  io::GgufWriter writer(path, metadata_of(description, tokenizer, chat_template, name, type),
                        headers);
  Progress progress("writing the GGUF file", static_cast<int64_t>(parts.size()), "tensors");
  for (size_t i = 0; i < parts.size(); ++i) {
    writer.write(parts[i].name, encoded(headers[i], parts[i].make()));
    progress.advance();
  }
  writer.finish();
}

std::string other_types_sentence(const model::CausalLm& model, const GgufType& type) {
  if (!type.is_quantized()) return "";
  const model::GgufDescription description = description_of(model);
  const GgufTypes types(type, description);
  int64_t matrices = 0, others = 0;
  std::map<std::string, int64_t> number_of;
  std::set<int64_t> blocks;
  for (const GgufPart& part : all_parts(model, description, nullptr)) {
    const io::DType wanted = types.of_whole_blocks(part.name, part.shape);
    if (!io::is_block_type(wanted)) continue;
    ++matrices;
    const io::DType found = types.of(part.name, part.shape);
    if (found == wanted) continue;
    ++others;
    ++number_of[io::dtype_name(found)];
    blocks.insert(io::elements_per_block(wanted));
  }
  if (others == 0) return "";
  std::vector<std::string> listed;
  for (const auto& [name, number] : number_of) listed.push_back(fmt::format("{} {}", number, name));
  return fmt::format(
      "Of {} matrices {} have another type than {} gives them, for their rows are no multiple of "
      "{} weights (llama.cpp does the same): {}.",
      matrices, others, type.name, fmt::join(blocks, " or "), fmt::join(listed, ", "));
}

}  // namespace qlora::exporting
