#include "recipes/exports/export_model.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <malloc.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/byte_size.h"
#include "base/error.h"
#include "base/log.h"
#include "base/utf8.h"
#include "data/cache/cached_dataset.h"
#include "data/shards.h"
#include "export/adapter.h"
#include "export/export_card.h"
#include "export/merged.h"
#include "io/atomic_write.h"
#include "io/json_text.h"
#include "model/expert_targets.h"
#include "model/load.h"
#include "model/model_header.h"
#include "quant/prequantized/read_only_formats.h"
#include "recipes/exports/export_gguf.h"
#include "recipes/exports/merge_base.h"
#include "recipes/exports/sample_rows.h"
#include "recipes/exports/training_facts.h"
#include "recipes/models/model_tokens.h"
#include "recipes/run_files/run_names.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

constexpr double kLeastAgreement = 0.8;
constexpr size_t kMostRows = 1000;  // handed on to be compared, which a few of them are

// Rows of the recipe where their files are at hand, else a few sentences.
std::vector<std::vector<int32_t>> sample_rows(const TrainedModel& trained) {
  std::vector<std::vector<int32_t>> rows;
  const BaseModel& base = trained.base;
  const data::DataOptions& data = trained.recipe.data;
  const auto& datasets = data.eval.empty() ? data.train : data.eval;
  if (!datasets.empty() && data::is_at_hand(datasets[0])) {
    const data::LoadedDataset dataset =
        data::load_dataset(datasets[0], 0, data, *base.tokenizer, base.chat_template.get(),
                           model_tokens(base.model->architecture()));
    for (const data::ExampleView& example : dataset.examples) {
      if (rows.size() == kMostRows) break;
      rows.emplace_back(example.tokens.begin(), example.tokens.end());
    }
    return rows;
  }
  return sample_sentences(*base.tokenizer);
}

// Nothing where experts are to be stacked.
std::optional<lora::SeparateNames> expert_names(const TrainedModel& trained,
                                                const ExportOptions& options) {
  if (options.experts == "stacked") return std::nullopt;
  const model::Architecture& architecture = trained.base.model->architecture();
  const auto names = model::separate_names(architecture);
  if (!names)
    fail<ConfigError>(
        "--experts separate: {} has no experts that were Linears of their own in transformers 4",
        architecture.family);
  return names;
}

// The adapter as it lies on disk, in the slots of the trained model, which then has its own again.
exporting::Agreement check_adapter(const std::string& directory, TrainedModel& trained,
                                   const exporting::Reference& reference) {
  at::Tensor values = trained.adapters->values();
  const at::Tensor kept = values.clone();
  values.zero_();
  try {
    lora::read_adapter_tensors(directory, *trained.adapters);
    const exporting::Agreement agreement = reference.compare(*trained.base.model);
    check(at::equal(kept, values), "{}: the adapter was not written as it was trained", directory);
    return agreement;
  } catch (...) {
    values.copy_(kept);
    trained.adapters->publish();
    throw;
  }
}

// Of a base that cannot be merged into as it is stored.
void tell_of_read_only_format(const TrainedModel& trained, const std::string& dtype) {
  const model::ModelHeader header = model::read_model_header(trained.base.path);
  std::string name;
  if (header.mxfp4_experts)
    name = "MXFP4";
  else if (header.stored)
    name = header.stored->name();
  if (quant::find_read_only_format(name))
    log::info("the base is {}, which is read, not written: the merged directory is in {}", name,
              dtype);
}

exporting::Agreement check_merged(const std::string& directory, const TrainedModel& trained,
                                  const std::string& dtype, const exporting::Reference& reference) {
  // What was written tensor by tensor left holes in the heap, and the reload needs the room.
  malloc_trim(0);
  const auto source = model::open_weights(directory);
  model::ModelOptions options;
  options.path = directory;
  options.dtype = dtype;
  const auto reloaded = model::load_model(*source, options, {}, trained.base.model->device(),
                                          trained.base.model->compute_dtype());
  return reference.compare(*reloaded);
}

struct Merge {
  std::string base;       // dequantized | original
  std::string directory;  // where it was written
  exporting::Agreement agreement;
};

Merge write_merge(const std::string& base, const std::string& directory,
                  const TrainedModel& trained, const ExportOptions& options,
                  model::WeightSource* original, const exporting::Reference& reference) {
  fs::create_directories(directory);
  if (options.format == "gguf") {
    write_gguf(directory, trained, options, original);
    return {base, directory, check_gguf(directory, trained, options, reference)};
  }
  exporting::write_merged(directory, *trained.base.model, *trained.base.tokenizer,
                          trained.base.chat_template.get(),
                          original ? original->place() : trained.base.path,
                          model::dtype_from_string(options.dtype, "--dtype"), original,
                          byte_size(options.max_shard_size).value());
  return {base, directory, check_merged(directory, trained, options.dtype, reference)};
}

// Both in directories of their own; the better one's files move up, the other's go.
std::vector<Merge> write_both(const std::string& directory, const TrainedModel& trained,
                              const ExportOptions& options, model::WeightSource& original,
                              const exporting::Reference& reference) {
  std::vector<Merge> merges;
  for (const char* base : {"dequantized", "original"})
    merges.push_back(write_merge(base, (fs::path(directory) / base).string(), trained, options,
                                 base == std::string("original") ? &original : nullptr, reference));
  if (merges[1].agreement.kl_mean < merges[0].agreement.kl_mean) std::swap(merges[0], merges[1]);
  for (const fs::directory_entry& file : fs::directory_iterator(merges[0].directory))
    fs::rename(file.path(), fs::path(directory) / file.path().filename());
  for (const Merge& merge : merges) fs::remove_all(merge.directory);
  log::info(
      "--merge-base auto: KL to the trained model {:.3e} on {} weights, {:.3e} on {}; the "
      "first is kept",
      merges[0].agreement.kl_mean, merges[0].base, merges[1].agreement.kl_mean, merges[1].base);
  return merges;
}

// What was measured, the merge that was kept first.
std::vector<Merge> export_merged(const std::string& directory, const TrainedModel& trained,
                                 const ExportOptions& options,
                                 const exporting::Reference& reference) {
  if (options.merge_base == "dequantized")
    return {write_merge("dequantized", directory, trained, options, nullptr, reference)};
  const auto original = open_original(trained, options.original);
  if (options.merge_base == "auto")
    return write_both(directory, trained, options, *original, reference);
  return {write_merge("original", directory, trained, options, original.get(), reference)};
}

nlohmann::ordered_json json_of(const exporting::Agreement& agreement) {
  return io::ordered_json_from_text(agreement.to_json());
}

nlohmann::ordered_json report_of(const std::vector<Merge>& merges, const ExportOptions& options) {
  nlohmann::ordered_json report = json_of(merges[0].agreement);
  if (options.format == "gguf")
    report["type"] = gguf_type_of(options);
  else
    report["dtype"] = options.dtype;
  report["merge_base"] = merges[0].base;
  if (merges.size() < 2) return report;
  report["chosen_by"] = "the lower kl_mean, to the trained model";
  for (const Merge& merge : merges) report["measured"][merge.base] = json_of(merge.agreement);
  return report;
}

void require_agreement(const exporting::Agreement& agreement, const std::string& merge_base,
                       bool is_quantized) {
  if (agreement.top1 >= kLeastAgreement) return;
  if (is_quantized) {
    log::warning(
        "quantized, the model is not the one that was trained ({}); a type of more bits "
        "comes nearer",
        agreement.to_text());
    return;
  }
  if (merge_base == "original") {
    log::warning(
        "on the original weights the model is not the one that was trained ({}); the adapter was "
        "trained on the errors of the quantized ones",
        agreement.to_text());
    return;
  }
  fail<Error>(
      "the export was reloaded and is not the model that was trained ({}); nothing was written",
      agreement.to_text());
}

bool is_adapter_format(const std::string& format) {
  return format == "adapter" || format == "gguf-lora";
}

void require_adapter(const TrainedModel& trained, const std::string& format) {
  if (!trained.adapters)
    fail<ConfigError>("--format {} needs a run or --adapter; the model has none", format);
  if (trained.base.changed && !trained.recipe.lora.from_adapter.empty())
    fail<ConfigError>(
        "--format {}: {} belongs to the base less the product it began with (init_lora_weights), "
        "and would be written for that base, which lies nowhere; use it as it is, or export "
        "--format merged",
        format, trained.recipe.lora.from_adapter);
}

// What cards say of data, settings and figures.
std::string training_of(const TrainedModel& trained) {
  return trained.run_recipe
             ? training_facts(*trained.run_recipe, trained.base.record.compute_dtype, trained.step)
             : origin_facts(trained.chosen_adapters, trained.combination);
}

// README.md; of an adapter for PEFT fill_adapter_directory() writes it.
void write_card(const std::string& directory, const TrainedModel& trained,
                const ExportOptions& options, const std::string& merge_base) {
  exporting::ExportCard card{
      .format = options.format,
      .type = options.format == "merged" ? options.dtype : gguf_type_of(options),
      .merge_base = merge_base,
      .has_encoder = trained.base.model->architecture().has_encoder(),
      .has_template = trained.base.chat_template != nullptr};
  if (is_gguf_format(options.format)) {
    card.differences_of_ollama = differences_of_ollama(trained);
    card.other_types = other_gguf_types(trained, options);
    if (!card.other_types.empty()) log::write_info(card.other_types);
  }
  if (trained.adapters) {
    card.adapter = trained.recipe.lora;
    card.training = training_of(trained);
  }
  io::write_file_atomically(
      (fs::path(directory) / "README.md").string(),
      replace_invalid_utf8(exporting::export_card(card, trained.base.record)));
}

exporting::Agreement export_adapter(const std::string& directory, TrainedModel& trained,
                                    const ExportOptions& options,
                                    const exporting::Reference& reference) {
  if (options.format == "gguf-lora")
    return export_gguf_adapter(directory, trained, options, reference);
  const auto separate = expert_names(trained, options);
  exporting::fill_adapter_directory(directory, *trained.adapters, trained.recipe.lora,
                                    lora::without_places(trained.base.record),
                                    *trained.base.tokenizer, trained.base.chat_template.get(),
                                    training_of(trained), separate ? &*separate : nullptr);
  return check_adapter(directory, trained, reference);
}

}  // namespace

void check_export_options(const ExportOptions& options) {
  const bool is_gguf = options.format == "gguf" || options.format == "gguf-lora";
  if (options.format != "adapter" && options.format != "merged" && !is_gguf)
    fail<ConfigError>("--format must be adapter, merged, gguf or gguf-lora, found '{}'",
                      options.format);
  if (is_gguf)
    check_gguf_options(options);
  else if (!options.type.empty())
    fail<ConfigError>("--type {} goes with --format gguf or gguf-lora", options.type);
  if (!byte_size(options.max_shard_size))
    fail<ConfigError>("--max-shard-size must be a size above 0 such as 5GB (units: {}), found '{}'",
                      kSizeUnits, options.max_shard_size);
  if (options.dtype != "auto") model::dtype_from_string(options.dtype, "--dtype");
  check_merge_base(options.merge_base);
  if (options.merge_base != "dequantized" && options.format != "merged" && options.format != "gguf")
    fail<ConfigError>("--merge-base {} goes with --format merged or gguf", options.merge_base);
  if (options.experts != "stacked" && options.experts != "separate")
    fail<ConfigError>("--experts must be stacked or separate, found '{}'", options.experts);
  if (options.experts == "separate" && options.format != "adapter")
    fail<ConfigError>("--experts separate goes with --format adapter");
  if (options.merge_base == "dequantized" && !options.original.empty())
    throw ConfigError("--original goes with --merge-base original or auto");
}

exporting::Agreement export_model(TrainedModel& trained, const ExportOptions& given) {
  check_export_options(given);
  ExportOptions options = given;
  if (options.dtype == "auto") options.dtype = trained.base.record.dtype;
  if (is_adapter_format(options.format)) require_adapter(trained, options.format);
  at::NoGradGuard no_grad;
  const exporting::Reference reference(*trained.base.model, sample_rows(trained));
  require_no_place_of_a_run("--output", options.output);
  io::AtomicDirectory target(options.output);
  exporting::Agreement agreement;
  nlohmann::ordered_json report;
  if (is_adapter_format(options.format)) {
    agreement = export_adapter(target.path(), trained, options, reference);
    require_agreement(agreement, "", false);
    report = json_of(agreement);
    if (options.format == "gguf-lora") write_card(target.path(), trained, options, "");
  } else {
    const bool quantized = is_quantized_gguf(options);
    if (options.format == "merged") tell_of_read_only_format(trained, options.dtype);
    const std::vector<Merge> merges = export_merged(target.path(), trained, options, reference);
    for (const Merge& merge : merges)  // the other one of auto, too, where it ought to agree
      if (&merge == &merges[0] || merge.base == "dequantized")
        require_agreement(merge.agreement, merge.base, quantized);
    agreement = merges[0].agreement;
    report = report_of(merges, options);
    write_card(target.path(), trained, options, merges[0].base);
  }
  io::write_file_atomically((fs::path(target.path()) / "verification.json").string(),
                            io::json_text(report, 2) + "\n");
  target.commit();
  return agreement;
}

}  // namespace qlora::recipes
