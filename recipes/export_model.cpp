#include "recipes/export_model.h"

#include <ATen/ATen.h>

#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "data/dataset.h"
#include "export/adapter.h"
#include "export/merged.h"
#include "io/atomic_write.h"
#include "model/load.h"
#include "recipes/sample_rows.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

constexpr double kLeastAgreement = 0.8;

// Rows of the recipe where their files are at hand, else a few sentences.
std::vector<std::vector<int32_t>> sample_rows(const TrainedModel& trained) {
  std::vector<std::vector<int32_t>> rows;
  const BaseModel& base = trained.base;
  const data::DataOptions& data = trained.recipe.data;
  const auto& datasets = data.eval.empty() ? data.train : data.eval;
  if (!datasets.empty() && fs::exists(datasets[0].path)) {
    const data::Dataset dataset =
        data::read_dataset(datasets[0], 0, data, *base.tokenizer, base.chat_template.get());
    for (const data::Example& example : dataset.examples) rows.push_back(example.tokens);
    return rows;
  }
  return sample_sentences(*base.tokenizer);
}

// The adapter as it lies on disk, in the slots of the trained model.
exporting::Agreement check_adapter(const std::string& directory, TrainedModel& trained,
                                   const exporting::Reference& reference) {
  const at::Tensor kept = trained.adapters->values().clone();
  at::Tensor values = trained.adapters->values();
  values.zero_();
  lora::read_adapter_tensors(directory, *trained.adapters);
  const exporting::Agreement agreement = reference.compare(*trained.base.model);
  check(at::equal(kept, trained.adapters->values()),
        "{}: the adapter was not written as it was trained", directory);
  return agreement;
}

exporting::Agreement check_merged(const std::string& directory, const TrainedModel& trained,
                                  const std::string& dtype, const exporting::Reference& reference) {
  const auto source = model::open_weights(directory);
  model::ModelOptions options;
  options.path = directory;
  options.dtype = dtype;
  const auto reloaded = model::load_model(*source, options, {}, trained.base.model->device(),
                                          trained.base.model->compute_dtype());
  return reference.compare(*reloaded);
}

}  // namespace

void check_export_options(const ExportOptions& options) {
  if (options.format == "gguf" || options.format == "gguf-lora")
    fail<ConfigError>("--format {} is not in this version; export adapter or merged",
                      options.format);
  if (options.format != "adapter" && options.format != "merged")
    fail<ConfigError>("--format must be adapter or merged, found '{}'", options.format);
  model::dtype_from_string(options.dtype, "--dtype");
}

exporting::Agreement export_model(TrainedModel& trained, const ExportOptions& options) {
  check_export_options(options);
  if (options.format == "adapter" && !trained.adapters)
    throw ConfigError("--format adapter needs a run or --adapter; the model has none");
  at::NoGradGuard no_grad;
  const exporting::Reference reference(*trained.base.model, sample_rows(trained));
  io::AtomicDirectory target(options.output);
  exporting::Agreement agreement;
  if (options.format == "adapter") {
    exporting::fill_adapter_directory(target.path(), *trained.adapters, trained.recipe.lora,
                                      trained.base.record, *trained.base.tokenizer);
    agreement = check_adapter(target.path(), trained, reference);
  } else {
    exporting::write_merged(target.path(), *trained.base.model, *trained.base.tokenizer,
                            trained.base.path, model::dtype_from_string(options.dtype, "--dtype"));
    agreement = check_merged(target.path(), trained, options.dtype, reference);
  }
  check(agreement.top1 >= kLeastAgreement,
        "the export was reloaded and is not the model that was trained ({}); nothing was written",
        agreement.to_text());
  io::write_file_atomically((fs::path(target.path()) / "verification.json").string(),
                            agreement.to_json());
  target.commit();
  return agreement;
}

}  // namespace qlora::recipes
