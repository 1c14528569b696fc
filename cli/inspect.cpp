#include "cli/inspect.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "base/shown_text.h"
#include "base/terminal.h"
#include "cli/inspect_data.h"
#include "cli/inspect_model.h"
#include "cli/page_line.h"
#include "cli/stop_signal.h"
#include "data/chat_renderer.h"
#include "io/json_text.h"
#include "io/safetensors.h"
#include "lora/adapter_file.h"
#include "model/hub_cache.h"
#include "model/model_header.h"
#include "recipes/before_loading.h"
#include "recipes/models/adapter_text.h"
#include "recipes/models/model_tokens.h"
#include "recipes/options_from_files.h"
#include "recipes/report/page.h"
#include "recipes/report/rows.h"
#include "recipes/run/training_data.h"
#include "recipes/run_files/run_directory.h"
#include "recipes/run_files/run_names.h"
#include "recipes/yaml/recipe_yaml.h"
#include "trainer/checkpoint.h"

namespace {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using qlora::ConfigError;

Json describe_adapter(const std::string& path) {
  const qlora::lora::LoraOptions options = qlora::lora::read_adapter_options(path);
  const auto tensors =
      qlora::io::read_safetensors((fs::path(path) / "adapter_model.safetensors").string());
  Json facts = {{"kind", "LoRA adapter"},     {"path", path},
                {"rank", options.rank},       {"alpha", options.alpha},
                {"dropout", options.dropout}, {"use_rslora", options.use_rslora},
                {"targets", options.targets}};
  if (!options.modules_to_save.empty()) facts["modules_to_save"] = options.modules_to_save;
  if (!options.trainable_token_indices.empty())
    facts["trainable_token_indices"] = options.trainable_token_indices;
  if (const auto base = qlora::lora::read_adapter_base(path)) {
    facts["base_model"] = base->name;
    facts["base_quantization"] = base->quantization.to_text();
    facts["base_hash"] = base->hash;
  }
  facts["tensors"] = qlora::cli::tensor_facts(tensors.tensors);
  return facts;
}

Json describe_checkpoint(const std::string& path) {
  qlora::trainer::verify_checkpoint(path);
  const qlora::trainer::TrainState state = qlora::trainer::read_train_state(path);
  return {{"kind", "checkpoint (complete, all hashes match)"},
          {"path", path},
          {"step", state.step},
          {"horizon", state.horizon},
          {"epoch", state.position.epoch},
          {"tokens", state.tokens},
          {"supervised_tokens", state.supervised_tokens},
          {"best_step", state.best_step},
          {"device", state.choices.device},
          {"threads", state.choices.threads},
          {"base_hash", state.base_hash}};
}

Json describe_run(const std::string& path) {
  const qlora::recipes::Recipe recipe = qlora::recipes::read_run_recipe(path);
  const bool is_replaced = qlora::recipes::is_being_replaced(path);
  Json facts = {{"kind", "run"},
                {"path", path},
                {"model", recipe.model.path},
                {"quantization", recipe.quantization.to_text()},
                {"adapter", !is_replaced && qlora::recipes::has_adapter(path) ? "adapter"
                                                                              : "not written yet"}};
  qlora::trainer::NewestCheckpoint newest;  // none of the run that is replaced
  if (!is_replaced) newest = qlora::trainer::newest_checkpoint(path, qlora::trainer::Look::kHashes);
  facts["last_checkpoint"] = newest.whole ? describe_checkpoint(*newest.whole) : Json(nullptr);
  for (const auto& [directory, fault] : newest.passed_over) facts["not_whole"].push_back(fault);
  facts["footprint"] = qlora::cli::run_footprint(path);
  return facts;
}

Json describe(const std::string& path_or_id) {
  const std::string path = qlora::model::resolve_model_path(path_or_id);
  const auto holds = [&path](const char* name) { return fs::exists(fs::path(path) / name); };
  if (path.ends_with(".gguf")) return qlora::cli::describe_gguf(path);
  if (qlora::recipes::is_run(path)) return describe_run(path);
  if (holds("MANIFEST.json")) return describe_checkpoint(path);
  if (holds("adapter_config.json")) return describe_adapter(path);
  if (holds("config.json")) return qlora::cli::describe_model_directory(path);
  qlora::fail<ConfigError>(
      "{} is none of: a .gguf file, a Hugging Face model, an adapter, a checkpoint, a run", path);
}

void print(const Json& facts, const std::string& indent) {
  for (const auto& [key, value] : facts.items()) {
    if (key == "footprint" && value.is_object()) {
      fmt::print("{}:\n{}", key, qlora::cli::footprint_text(value));
    } else if (value.is_object()) {
      fmt::print("{}{}:\n", indent, key);
      print(value, indent + "  ");
    } else {
      fmt::print("{}{}: {}\n", indent, key,
                 value.is_string() ? qlora::shown_text(value.get<std::string>())
                                   : qlora::io::json_text_in_utf8(value));
    }
  }
}

void inspect_path(const std::string& path, bool json) {
  const Json facts = describe(path);
  if (json) {
    fmt::print("{}\n", qlora::io::json_text_in_utf8(facts, 2));
  } else {
    print(facts, "");
  }
}

// What the rows of a recipe are read with.
struct ModelOfRows {
  std::unique_ptr<qlora::data::Tokenizer> tokenizer;
  std::unique_ptr<qlora::data::ChatTemplate> chat_template;
  qlora::data::ModelTokens tokens;
};

ModelOfRows model_of_rows(qlora::recipes::Recipe& recipe) {
  try {
    qlora::recipes::adopt_chat_template(recipe);
    const std::string path = qlora::model::resolve_model_path(recipe.model.path);
    ModelOfRows model;
    model.tokenizer = qlora::recipes::tokenizer_of(recipe).tokenizer;
    model.chat_template = qlora::data::choose_chat_template(recipe.data, *model.tokenizer);
    model.tokens = qlora::recipes::model_tokens(qlora::model::read_model_header(path).architecture);
    return model;
  } catch (const qlora::Error&) {
    qlora::recipes::check_before_loading(recipe);  // which tells all that is wrong, files too
    throw;
  }
}

// Printed, or with `html` written to that file as a page.
void inspect_data(const std::string& path, const std::vector<std::string>& overrides,
                  const qlora::cli::InspectDataOptions& options, const std::string& html) {
  qlora::recipes::Recipe recipe = qlora::recipes::read_recipe(path, overrides);
  qlora::recipes::tell_left_out(recipe);
  const ModelOfRows model = model_of_rows(recipe);
  const auto data = [&] {  // a stop leaves nothing half-written in the data cache
    const qlora::cli::StopSignalsWatched watched;
    auto prepared =
        qlora::data::prepare_datasets(recipe.data_as_read(), *model.tokenizer,
                                      model.chat_template.get(), recipe.train.seed, model.tokens);
    qlora::cli::StopSignalsWatched::leave_behind_rows();
    return prepared;
  }();
  if (html.empty())
    return qlora::cli::print_data(stdout, data, qlora::recipes::mixture_of(recipe, data),
                                  *model.tokenizer, options);
  Json record =
      qlora::recipes::data_record("Rows of " + path, data, *model.tokenizer, options.num_rows);
  record["made"] = qlora::cli::page_line();
  qlora::recipes::write_page(html, record);
  fmt::print("written to {}; open it in a browser\n", html);
}

struct InspectArguments {
  std::string path, model, recipe, html;
  std::vector<std::string> overrides;
  bool json = false, no_colour = false;
  qlora::cli::InspectDataOptions data;
};

void add_data_command(qlora::cli::Command inspect,
                      const std::shared_ptr<InspectArguments>& arguments) {
  qlora::cli::Command data = inspect.add_subcommand(
      "data", "The rows of a recipe as tokens: what is trained is green (or stands in brackets)");
  data.add_option("RECIPE", arguments->recipe, "YAML file").required();
  data.add_option("--set", arguments->overrides, "key=value that replaces one of the recipe");
  data.add_option("--rows", arguments->data.num_rows, "Rows of each dataset; -1: all")
      .at_least(-1)
      .with_shown_default();
  const qlora::cli::Option html =
      data.add_option("--html", arguments->html, "File to write: the rows as a page for a browser");
  data.add_flag("--json", arguments->data.json, "One JSON object a line, with the token ids");
  data.add_flag("--no-colour", arguments->no_colour, "Brackets even on a terminal");
  data.callback([arguments, html] {
    if (html.is_given()) qlora::recipes::require_page_file(arguments->html);
    arguments->data.colour = !arguments->no_colour && qlora::takes_colour(stdout);
    inspect_data(arguments->recipe, arguments->overrides, arguments->data, arguments->html);
  });
}

}  // namespace

void add_inspect_command(qlora::cli::Command app) {
  auto arguments = std::make_shared<InspectArguments>();
  qlora::cli::Command command = app.add_subcommand(
      "inspect", "What lies at a path: model, GGUF file, adapter, checkpoint or run");
  const qlora::cli::Option place =
      command.add_option("PATH", arguments->path, "File, directory or hub id");
  const qlora::cli::Option model =
      command.add_option("--model", arguments->model, "The same as PATH");
  command.add_flag("--json", arguments->json, "As JSON");
  add_data_command(command, arguments);
  command.callback([command, arguments, place, model] {
    if (command.has_subcommand_given()) return;
    if (place.is_given() && model.is_given()) throw ConfigError("give a PATH or --model, not both");
    if (model.is_given()) arguments->path = arguments->model;
    if (arguments->path.empty()) throw ConfigError("give a PATH, or `inspect data RECIPE`");
    inspect_path(arguments->path, arguments->json);
  });
}
