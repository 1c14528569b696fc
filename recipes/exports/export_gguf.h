// Exports to llama.cpp and Ollama: a GGUF file of the merged model or of the adapter, a Modelfile
// beside it, and what reading them again finds.
#pragma once

#include <string>
#include <vector>

#include "export/verify.h"
#include "model/weight_source.h"
#include "recipes/exports/export_model.h"
#include "recipes/models/trained_model.h"

namespace qlora::recipes {

bool is_gguf_format(const std::string& format);  // gguf or gguf-lora
// --type, or what it is where it is left out.
std::string gguf_type_of(const ExportOptions& options);
// Whether the weights are rounded to blocks: the model then is another one.
bool is_quantized_gguf(const ExportOptions& options);
// ConfigError unless --type is one that the format takes.
void check_gguf_options(const ExportOptions& options);
// From config.json and tokenizer alone: ConfigError if GGUF files cannot hold the chosen base.
// Nothing is loaded.
void require_gguf_base(const ModelChoice& choice);

// Writes model.gguf and Modelfile into `directory`. `original`: what the adapter is merged into,
// null: the base as it was trained on.
void write_gguf(const std::string& directory, const TrainedModel& trained,
                const ExportOptions& options, model::WeightSource* original);
// How many matrices of model.gguf have another type than --type gives them; empty: none.
std::string other_gguf_types(const TrainedModel& trained, const ExportOptions& options);
// What a README.md beside a Modelfile says of it: sentences on what Ollama does otherwise than the
// chat template.
std::vector<std::string> differences_of_ollama(const TrainedModel& trained);
// model.gguf loaded again, its blocks as they are, and compared. Warns if its tokenizer makes other
// ids of the reference's rows.
exporting::Agreement check_gguf(const std::string& directory, const TrainedModel& trained,
                                const ExportOptions& options,
                                const exporting::Reference& reference);

// adapter.gguf, Modelfile and the chat template trained with, as chat_template.jinja; the adapter
// read again into the slots of the trained model, which then has its own factors again.
exporting::Agreement export_gguf_adapter(const std::string& directory, TrainedModel& trained,
                                         const ExportOptions& options,
                                         const exporting::Reference& reference);

}  // namespace qlora::recipes
