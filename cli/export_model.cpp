#include "cli/export_model.h"

#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/stop.h"
#include "cli/model_choice.h"
#include "cli/stop_signal.h"
#include "recipes/exports/export_gguf.h"
#include "recipes/exports/export_model.h"
#include "recipes/models/combined_model.h"
#include "recipes/output_place.h"

namespace {

struct ExportArguments {
  qlora::recipes::ModelChoice choice;
  std::vector<std::string> adapters;
  bool combine = false;
  qlora::lora::CombineOptions combination;
  qlora::recipes::ExportOptions options;
};

qlora::recipes::TrainedModel open(const ExportArguments& arguments) {
  qlora::recipes::ModelChoice choice = arguments.choice;
  if (!arguments.adapters.empty()) choice.adapter = arguments.adapters.front();
  if (arguments.combine)
    return qlora::recipes::open_combined_model(choice, arguments.adapters, arguments.combination);
  if (arguments.adapters.size() > 1)
    throw qlora::ConfigError("several --adapter need --combine, which says how they become one");
  return qlora::recipes::open_model(choice);
}

void run(const ExportArguments& arguments) {
  qlora::recipes::check_export_options(arguments.options);
  qlora::recipes::require_output_directory("--output", arguments.options.output);
  if (qlora::recipes::is_gguf_format(arguments.options.format))
    qlora::recipes::require_gguf_base(arguments.choice);
  const qlora::ObeyStop obey(qlora::cli::watch_stop_signals());
  qlora::recipes::TrainedModel trained = open(arguments);
  const auto agreement = qlora::recipes::export_model(trained, arguments.options);
  qlora::cli::print_result(
      fmt::format("written to {}\nreloaded and compared with the trained model: {}\n",
                  arguments.options.output, agreement.to_text()));
}

void add_file_options(qlora::cli::Command command, qlora::recipes::ExportOptions& options) {
  command.add_option("--type", options.type,
                     "Of GGUF files: f16 (default), bf16, f32 (default of gguf-lora), q8_0, q4_0, "
                     "q4_1, q5_0, q5_1, q4_k_m, q5_k_m, q6_k");
  command
      .add_option("--max-shard-size", options.max_shard_size,
                  "Of each file of merged weights: 5GB, 800MB")
      .with_shown_default();
}

void add_merge_options(qlora::cli::Command command, qlora::recipes::ExportOptions& options) {
  command
      .add_option("--dtype", options.dtype,
                  "Of merged weights: auto (as the base has what is not quantized), bfloat16, "
                  "float16, float32")
      .with_shown_default();
  command
      .add_option("--merge-base", options.merge_base,
                  "What the adapter is merged into. dequantized: the quantized base it was trained "
                  "on. original: the 16-bit weights before quantization. auto: writes both and "
                  "keeps the one with the lower KL divergence from the trained model")
      .with_shown_default();
  command.add_option(
      "--original", options.original,
      "Where the 16-bit weights lie: directory, .gguf file or hub id (default: where "
      "the base came from)");
}

// Gives --combine, which the options after it need.
qlora::cli::Option add_combine_options(qlora::cli::Command command, ExportArguments& arguments) {
  command
      .add_option("--adapter", arguments.adapters,
                  "PEFT adapter directory, on top of --model; several with --combine")
      .one_value_each_time();
  qlora::lora::CombineOptions& options = arguments.combination;
  const qlora::cli::Option combine = command.add_option(
      "--combine", options.method,
      "How several adapters become one, as PEFT's add_weighted_adapter: linear, cat (exact; the "
      "ranks add up), ties, dare_linear, dare_ties, magnitude_prune");
  const qlora::cli::Option dependent[] = {
      command.add_option("--weights", options.weights, "One for each adapter: 0.7,0.3")
          .separated_by(','),
      command.add_option("--density", options.density,
                         "Share of an adapter's numbers that ties, dare and magnitude_prune keep"),
      command
          .add_option("--majority-sign", options.majority_sign,
                      "How ties elects a sign: total or frequency")
          .with_shown_default(),
      command.add_option("--seed", options.seed, "Of what dare keeps")
          .not_negative()
          .with_shown_default()};
  for (const qlora::cli::Option& option : dependent) option.needs(combine);
  return combine;
}

}  // namespace

void add_export_command(qlora::cli::Command app) {
  auto arguments = std::make_shared<ExportArguments>();
  qlora::cli::Command command = app.add_subcommand(
      "export", "Write the adapter, or the model merged with it, and check what was written");
  qlora::cli::add_base_choice(command, arguments->choice);
  const qlora::cli::Option combine = add_combine_options(command, *arguments);
  auto& options = arguments->options;
  command
      .add_option("--format", options.format,
                  "adapter: for PEFT and vLLM. merged: a Hugging Face model directory. gguf: the "
                  "merged model for llama.cpp and Ollama. gguf-lora: the adapter for these")
      .required();
  command.add_option("--output", options.output, "Directory to write").required();
  add_file_options(command, options);
  add_merge_options(command, options);
  command
      .add_option("--experts", options.experts,
                  "Adapters of a mixture's experts. stacked: as PEFT has them with transformers 5. "
                  "separate: one for each matrix of an expert, as with transformers 4 and in vLLM")
      .with_shown_default();
  command.callback([arguments, combine] {
    arguments->combine = combine.is_given();
    run(*arguments);
  });
}
