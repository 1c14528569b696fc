#include "cli/export_model.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "cli/model_choice.h"
#include "recipes/export_model.h"

namespace {

struct ExportArguments {
  qlora::recipes::ModelChoice choice;
  qlora::recipes::ExportOptions options;
};

void run(const ExportArguments& arguments) {
  qlora::recipes::check_export_options(arguments.options);
  qlora::recipes::TrainedModel trained = qlora::recipes::open_model(arguments.choice);
  const auto agreement = qlora::recipes::export_model(trained, arguments.options);
  fmt::print("written to {}\nreloaded and compared with the trained model: {}\n",
             arguments.options.output, agreement.to_text());
}

}  // namespace

void add_export_command(CLI::App& app) {
  auto arguments = std::make_shared<ExportArguments>();
  CLI::App* command = app.add_subcommand(
      "export", "Write the adapter, or the model merged with it, and check what was written");
  qlora::cli::add_model_choice(*command, arguments->choice);
  auto& options = arguments->options;
  command
      ->add_option("--format", options.format,
                   "adapter: for PEFT and vLLM. merged: a Hugging Face model directory")
      ->required();
  command->add_option("--output", options.output, "Directory to write")->required();
  command->add_option("--dtype", options.dtype, "Of merged weights: bfloat16, float16, float32")
      ->capture_default_str();
  command->callback([arguments] { run(*arguments); });
}
