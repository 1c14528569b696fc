// Recipes, and what a run reads back when it goes on.
#include "lora/adapter_file.h"
#include "optim/optimizer.h"
#include "quant/tensor_file.h"
#include "recipes/import/import_recipe.h"
#include "recipes/report/metrics_columns.h"
#include "recipes/run/samples.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/fuzz/target.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "trainer/checkpoint.h"
#include "trainer/metrics.h"

namespace qlora::fuzz {
namespace {

void read_recipe(std::string_view bytes) {
  taken_or_refused([&] { recipes::parse_recipe(std::string(bytes), "recipe.yaml", "/nowhere"); });
}

std::vector<std::string> recipe_seeds() {
  const test::TempDir dir;
  return {recipes::write_recipe(test::tiny_recipe(dir.path())),
          "model: {path: m}\nquantization: {method: nf4}\ndata:\n  train: [{path: a.jsonl, format: "
          "alpaca, fields: {instruction: q}}]\n"
          "lora: {targets: [all-linear]}\noutput: {dir: out}\n"};
}

// What an import gives as complete is a recipe.
void import_file(std::string_view bytes) {
  taken_or_refused([&] {
    const auto imported =
        recipes::import_recipe_text(std::string(bytes), "theirs.yaml", "/nowhere");
    if (imported.missing.empty()) recipes::parse_recipe(imported.text, "recipe.yaml", "/nowhere");
  });
}

std::vector<std::string> import_seeds() {
  return {
      "base_model: m\nadapter: qlora\nload_in_4bit: true\nlora_r: 8\nlora_target_linear: "
      "true\nval_set_size: 0.1\ndatasets: [{path: a.jsonl, type: alpaca, ds_type: json}]\n",
      "model_name_or_path: m\nstage: dpo\nfinetuning_type: lora\nlora_target: all\ndataset: "
      "a, b\ninterleave_probs: 0.5,0.5\neval_strategy: steps\neval_steps: 0.1\n",
      "model: {_component_: x.qlora_llama, lora_attn_modules: [q_proj], lora_rank: 8}\ndataset: "
      "{_component_: x.alpaca_dataset, source: json, data_files: a.json}\noutput_dir: "
      "${seed}/${x}\nseed: 1\nepochs: 2\nmax_steps_per_epoch: 5\n",
      "{\"peft_type\": \"LORA\", \"r\": 8, \"target_modules\": [\"q_proj\"], "
      "\"rank_pattern\": {\"a\": 4}, \"init_lora_weights\": true}"};
}

const std::vector<std::string> kCheckpointFiles = {"MANIFEST.json", "state.json",
                                                   "optimizer.safetensors"};

void read_checkpoint(std::string_view bytes) {
  static const test::TempDir dir(memory_file_system());
  static test::SmallRun run(2);
  write_parts(split_parts(bytes), kCheckpointFiles, dir.path());
  taken_or_refused([&] { trainer::verify_checkpoint(dir.path()); });
  taken_or_refused([&] { trainer::read_train_state(dir.path()); });
  taken_or_refused(
      [&] { run.optimizer->load_state(quant::read_tensors(dir / "optimizer.safetensors"), 1); });
}

std::vector<std::string> checkpoint_seeds() {
  const test::TempDir dir;
  test::SmallRun run(2);
  run.adapters->gradients().fill_(0.01F);
  run.optimizer->step(1e-3, 1.0);
  trainer::TrainState state;
  state.step = 1;
  lora::LoraOptions lora;
  const lora::AdapterBase base;
  trainer::save_checkpoint(dir.path(), {*run.adapters, lora, base, *run.optimizer, state});
  return {join_parts(parts_of_directory(dir / trainer::checkpoint_name(1), kCheckpointFiles))};
}

void read_metrics(std::string_view bytes) {
  static const test::TempDir dir(memory_file_system());
  const std::string path = dir.write("metrics.jsonl", std::string(bytes));
  taken_or_refused([&] { trainer::MetricsLog log(path, 3); });
  taken_or_refused([&] { recipes::metrics_columns(std::string(bytes)); });
}

std::vector<std::string> metrics_seeds() {
  const test::TempDir dir;
  {
    trainer::MetricsLog log(dir / "metrics.jsonl", 0);
    for (int step = 1; step < 6; ++step) log.write({.step = step, .total_steps = 6, .loss = 1.5});
    log.write_evaluation(5, 1.25, 100, 0.5);
  }
  return {test::read_file(dir / "metrics.jsonl")};
}

void read_prompts(std::string_view bytes) {
  static const test::TempDir dir(memory_file_system());
  trainer::TrainOptions options;
  options.sample_prompts = {dir.write("prompts.jsonl", std::string(bytes))};
  taken_or_refused([&] { recipes::read_sample_prompts(options); });
}

std::vector<std::string> prompt_seeds() {
  return {"\"one\"\n{\"prompt\": \"two\"}\n",
          "{\"messages\": [{\"role\": \"user\", \"content\": \"three\"}, {\"role\": "
          "\"assistant\", \"content\": \"3\"}]}\n"};
}

}  // namespace

std::vector<Target> run_targets() {
  return {{"recipe", read_recipe, recipe_seeds, {"model:",   "path:",     "quantization:",
                                                 "method:",  "lora:",     "rank:",
                                                 "targets:", "data:",     "train:",
                                                 "format:",  "fields:",   "optim:",
                                                 "lr:",      "output:",   "dir:",
                                                 "~",        "null",      "[",
                                                 "]",        "{",         "}",
                                                 "- ",       "&a ",       "*a",
                                                 "<<: ",     "!!binary ", "|\n  ",
                                                 "1e999",    ".inf",      ".nan",
                                                 "0x7f"}},
          {"import",
           import_file,
           import_seeds,
           {"lr_scheduler_kwargs: {min_lr: 1}", "learning_rate: ", "dataset_name: ", "beta: ",
            "special_tokens:\n  eos_token: ", "bnb_config_kwargs: {}", "${", "}", "- ", "true",
            "null", "[]", "{}", "1e999", "\"\"", "\"\\n\""}},
          {"checkpoint",
           read_checkpoint,
           checkpoint_seeds,
           {"\"format_version\"", "\"files\"", "\"bytes\"", "\"xxh3_128\"", "\"step\"", "null",
            "-1", "9223372036854775807", "1e99"}},
          {"metrics",
           read_metrics,
           metrics_seeds,
           {"\"step\"", "\"eval_loss\"", "null", "-1", "1e99", "\n"}},
          {"prompts",
           read_prompts,
           prompt_seeds,
           {"\"messages\"", "\"role\"", "\"content\"", "\"prompt\"", "null", "[]", "{}", "\n"}}};
}

}  // namespace qlora::fuzz
