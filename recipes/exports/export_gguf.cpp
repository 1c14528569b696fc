#include "recipes/exports/export_gguf.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <malloc.h>

#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "base/warn_once.h"
#include "data/tokenizers/gguf_tokenizer_metadata.h"
#include "data/tokenizers/tokenizer_files.h"
#include "export/gguf_adapter.h"
#include "export/gguf_model.h"
#include "export/modelfile.h"
#include "io/atomic_write.h"
#include "lora/weight_init.h"
#include "model/load.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

constexpr const char *kModelFile = "model.gguf", *kAdapterFile = "adapter.gguf";

std::string in(const std::string& directory, const char* name) {
  return (fs::path(directory) / name).string();
}

const exporting::GgufType& type_of(const ExportOptions& options) {
  return exporting::gguf_type(gguf_type_of(options));
}

// Its hub id or path; of a base that the run wrote those of the model that it was made from.
const std::string& base_of(const TrainedModel& trained) {
  const lora::AdapterBase& record = trained.base.record;
  if (!record.made_from.empty()) return record.made_from;
  return record.name.empty() ? trained.base.path : record.name;
}

// What a Modelfile of an adapter says of FROM.
const char* base_to_name(const TrainedModel& trained) {
  if (lora::init_changes_base(trained.base.record.init))
    return "the base that the adapter was trained on, as a GGUF file: on another it is wrong";
  return "the base as a GGUF file, or its name in Ollama's library";
}

exporting::Modelfile modelfile_of(const TrainedModel& trained, const std::string& from) {
  return exporting::modelfile(from, *trained.base.tokenizer, trained.base.chat_template.get(),
                              trained.run_recipe ? data::trained_prompts(trained.run_recipe->data)
                                                 : data::TrainedPrompts());
}

// `template_of_file`: what Ollama goes by where there is no TEMPLATE.
void write_modelfile(const std::string& directory, const std::string& from,
                     const TrainedModel& trained, const char* template_of_file) {
  const exporting::Modelfile file = modelfile_of(trained, from);
  io::write_file_atomically(in(directory, "Modelfile"), file.text);
  if (file.lacks_template)
    log::warning_once(
        "Modelfile has no TEMPLATE: Ollama's language was not found to say how the chat template "
        "puts conversations together. Ollama then goes by {}; if its answers are not those of "
        "`qlora chat`, write a TEMPLATE",
        template_of_file);
}

// Beside an adapter, whose base's file has the base's own texts.
void write_texts_of_adapter(const std::string& directory, const TrainedModel& trained) {
  if (trained.base.chat_template)
    io::write_file_atomically(in(directory, data::kTemplateFile),
                              trained.base.chat_template->source());
  if (trained.base.has_adapters_tokenizer)
    log::warning_once(
        "the adapter was trained with a tokenizer of its own; base.gguf is to hold that one, as a "
        "file made by export --format gguf with the adapter does, and one made of the base alone "
        "does not");
}

// What blocks do not hold: norms and the like are F32 in the file.
std::string dtype_to_load(const exporting::GgufType& type) {
  return type.name == "f32" ? "float32" : type.name == "f16" ? "float16" : "bfloat16";
}

void warn_of_other_ids(const std::string& path, const TrainedModel& trained,
                       const exporting::Reference& reference) {
  const auto written = data::load_tokenizer(path);
  const data::Tokenizer& own = *trained.base.tokenizer;
  for (const std::vector<int32_t>& row : reference.rows()) {
    const std::string text = own.decode(row, true);
    if (written->encode(text, true) == own.encode(text, true)) continue;
    log::warning(
        "the tokenizer of the GGUF file, which cannot hold everything that the model's own files "
        "say, makes other tokens of some texts than the model's own");
    return;
  }
}

}  // namespace

bool is_gguf_format(const std::string& format) { return format.starts_with("gguf"); }

std::string gguf_type_of(const ExportOptions& options) {
  if (!options.type.empty()) return options.type;
  return options.format == "gguf-lora" ? "f32" : "f16";
}

bool is_quantized_gguf(const ExportOptions& options) {
  return options.format == "gguf" && type_of(options).is_quantized();
}

void check_gguf_options(const ExportOptions& options) {
  const exporting::GgufType& type = type_of(options);
  if (options.format == "gguf-lora" && type.is_quantized())
    fail<ConfigError>("--format gguf-lora: --type must be f32, f16 or bf16, found '{}'", type.name);
}

void require_gguf_base(const ModelChoice& choice) {
  const std::string path = base_path_of(choice);
  const model::Architecture architecture = model::open_weights(path)->architecture();
  model::describe_for_gguf(architecture);
  data::gguf_tokenizer_metadata(*data::load_tokenizer(path), {.rows = architecture.vocab_size});
}

void write_gguf(const std::string& directory, const TrainedModel& trained,
                const ExportOptions& options, model::WeightSource* original) {
  exporting::write_gguf_model(in(directory, kModelFile), *trained.base.model,
                              *trained.base.tokenizer, trained.base.chat_template.get(),
                              base_of(trained), type_of(options), original);
  write_modelfile(directory, fmt::format("FROM ./{}\n", kModelFile), trained,
                  "the GGUF file's own, which it may not understand");
}

std::string other_gguf_types(const TrainedModel& trained, const ExportOptions& options) {
  if (options.format != "gguf") return "";
  return exporting::other_types_sentence(*trained.base.model, type_of(options));
}

std::vector<std::string> differences_of_ollama(const TrainedModel& trained) {
  return modelfile_of(trained, "").differences;
}

exporting::Agreement check_gguf(const std::string& directory, const TrainedModel& trained,
                                const ExportOptions& options,
                                const exporting::Reference& reference) {
  malloc_trim(0);  // what was written tensor by tensor left holes in the heap
  const std::string path = in(directory, kModelFile);
  warn_of_other_ids(path, trained, reference);
  const auto source = model::open_weights(path);
  model::ModelOptions loaded;
  loaded.path = path;
  loaded.dtype = dtype_to_load(type_of(options));
  const auto reloaded = model::load_model(*source, loaded, {}, trained.base.model->device(),
                                          trained.base.model->compute_dtype());
  return reference.compare(*reloaded);
}

exporting::Agreement export_gguf_adapter(const std::string& directory, TrainedModel& trained,
                                         const ExportOptions& options,
                                         const exporting::Reference& reference) {
  at::NoGradGuard no_grad;
  const std::string path = in(directory, kAdapterFile);
  const exporting::GgufType& type = type_of(options);
  exporting::write_gguf_adapter(path, *trained.base.model, *trained.adapters, base_of(trained),
                                type);
  write_modelfile(
      directory,
      fmt::format("# {}\nFROM ./base.gguf\nADAPTER ./{}\n", base_to_name(trained), kAdapterFile),
      trained, "that of base.gguf, which need not be the one that was trained with");
  write_texts_of_adapter(directory, trained);
  at::Tensor values = trained.adapters->values();
  const at::Tensor kept = values.clone();
  const auto restore = [&] {
    values.copy_(kept);
    trained.adapters->publish();
  };
  values.zero_();
  try {
    exporting::read_gguf_adapter(path, *trained.base.model);
    check(type.name != "f32" || at::equal(kept, values),
          "{}: the adapter was not written as it was trained", path);
    trained.adapters->publish();
    const exporting::Agreement agreement = reference.compare(*trained.base.model);
    restore();
    return agreement;
  } catch (...) {
    restore();
    throw;
  }
}

}  // namespace qlora::recipes
