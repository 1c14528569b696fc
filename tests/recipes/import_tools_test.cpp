// The common keys of each tool become exactly one recipe.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "recipes/import/import_recipe.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/imported_recipe.h"
#include "tests/support/temp_dir.h"

namespace qlora::recipes {
namespace {
using test::imported;
using test::keys_with;
using test::outcome_of;
using test::TempDir;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// All keys with their values, so that two recipes are the same if these texts are.
std::string every_key(const std::string& yaml) {
  return write_recipe(parse_recipe(yaml, "r.yaml", "/base"));
}

constexpr const char* kAxolotl = R"(
base_model: org/model
model_type: AutoModelForCausalLM
load_in_8bit: false
load_in_4bit: true
adapter: qlora
datasets:
  - path: data/rows.jsonl
    ds_type: json
    type: chat_template
    field_messages: turns
    message_property_mappings: {role: from, content: value}
val_set_size: 0.05
output_dir: ./out
sequence_len: 2048
sample_packing: true
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 3
optimizer: adamw_bnb_8bit
lr_scheduler: cosine
learning_rate: 0.0002
bf16: auto
flash_attention: true
gradient_checkpointing: True
warmup_steps: 10
eval_steps: 50
save_steps: 100
weight_decay: 0.01
logging_steps: 1
seed: 7
deepspeed: zero2.json
wandb_project: mine
wandb_entity:
special_tokens:
  pad_token: <pad>
)";

TEST(Import, AxolotlsCommonKeysGiveExactlyThisRecipe) {
  const ImportedRecipe recipe = imported(kAxolotl);
  EXPECT_EQ(recipe.tool, "Axolotl");
  EXPECT_THAT(recipe.missing, IsEmpty());
  EXPECT_EQ(every_key(recipe.text), every_key(R"(
model: {path: org/model}
quantization: {method: nf4}
lora: {rank: 32, alpha: 16, dropout: 0.05, targets: all-linear}
data:
  train: [{path: data/rows.jsonl, format: sharegpt, fields: {conversations: turns}}]
  eval_fraction: 0.05
  sequence_length: 2048
  packing: true
  on_overlength: drop
optim: {name: adamw_8bit, lr: 0.0002, schedule: cosine, warmup_steps: 10, weight_decay: 0.01}
train:
  epochs: 3
  micro_batch_size: 2
  gradient_accumulation_steps: 4
  gradient_checkpointing: true
  eval_every: 50
  save_every: 100
  log_every: 1
  seed: 7
output: {dir: ./out}
)"));
}

TEST(Import, WhatIsNotTakenOverIsToldByName) {
  const ImportedRecipe recipe = imported(kAxolotl);
  EXPECT_THAT(keys_with(recipe, Fate::kRefused), ElementsAre("deepspeed"));
  EXPECT_THAT(keys_with(recipe, Fate::kUnknown), IsEmpty());
  EXPECT_THAT(
      keys_with(recipe, Fate::kWithoutEffect),
      ElementsAre("model_type", "load_in_8bit", "datasets[].ds_type", "bf16", "flash_attention",
                  "wandb_project", "wandb_entity", "special_tokens.pad_token"));
  const std::string report = to_text(recipe);
  EXPECT_THAT(report, HasSubstr("not taken over, although it would change the training:\n"));
  EXPECT_THAT(report, HasSubstr("theirs.yaml:36:1: deepspeed (the processes of torchrun"));
  EXPECT_THAT(recipe.text, HasSubstr("# Not taken over: deepspeed (the processes of torchrun"));
  EXPECT_THAT(recipe.text, HasSubstr("  rank: 32  # lora_r\n"));
}

constexpr const char* kLlamaFactory = R"(
model_name_or_path: org/model
quantization_bit: 4
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
dataset: mine
template: llama3
cutoff_len: 1024
overwrite_cache: true
preprocessing_num_workers: 4
output_dir: saves/x
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
val_size: 0.1
eval_strategy: steps
eval_steps: 200
)";

TEST(Import, LlamaFactorysCommonKeysGiveExactlyThisRecipe) {
  TempDir dir;
  dir.write("data/dataset_info.json",
            R"({"mine": {"file_name": "mine.json", "formatting": "sharegpt",
                "columns": {"messages": "turns"},
                "tags": {"role_tag": "role", "content_tag": "content",
                         "user_tag": "user", "assistant_tag": "assistant"}}})");
  const ImportedRecipe recipe =
      import_recipe(dir.write("llama_factory.yaml", kLlamaFactory), "llama-factory");
  EXPECT_THAT(recipe.missing, IsEmpty());
  EXPECT_THAT(keys_with(recipe, Fate::kUnknown), IsEmpty());
  EXPECT_THAT(keys_with(recipe, Fate::kRefused), IsEmpty());
  EXPECT_EQ(every_key(recipe.text), every_key(R"(
model: {path: org/model}
quantization: {method: nf4}
lora: {rank: 8, alpha: 16, targets: all-linear}
data:
  train: [{path: data/mine.json, format: chat, fields: {messages: turns, system: none, tools: none}}]
  eval_fraction: 0.1
  sequence_length: 1024
  packing: false
  on_overlength: truncate_right
  chat_template: llama-3
optim: {name: adamw, lr: 1.0e-4, schedule: cosine, warmup_ratio: 0.1}
train:
  objective: sft
  epochs: 3
  micro_batch_size: 1
  gradient_accumulation_steps: 8
  eval_every: 200
  save_every: 500
  log_every: 10
output: {dir: saves/x, overwrite: true}
)"));
}

TEST(Import, DatasetNamesWithoutTheirExplanationAreToBeFilledIn) {
  TempDir dir;
  const ImportedRecipe recipe = import_recipe(dir.write("lf.yaml", kLlamaFactory));
  EXPECT_EQ(recipe.tool, "LLaMA-Factory");
  EXPECT_THAT(recipe.missing, ElementsAre(HasSubstr("data.train: mine is a name of dataset_info")));
  EXPECT_THAT(recipe.text, HasSubstr("  # Fill in: mine is a name of dataset_info.json"));
  EXPECT_THAT(recipe.text, HasSubstr("  # train:\n  #   - {path: mine, format: chat}\n"));
}

constexpr const char* kTorchtune = R"(
output_dir: /tmp/tune
model:
  _component_: torchtune.models.llama3_1.qlora_llama3_1_8b
  lora_attn_modules: ['q_proj', 'v_proj', 'output_proj']
  apply_lora_to_mlp: True
  apply_lora_to_output: False
  lora_rank: 8
  lora_alpha: 16
  lora_dropout: 0.0
tokenizer:
  _component_: torchtune.models.llama3.llama3_tokenizer
  path: /models/llama/original/tokenizer.model
  max_seq_len: 2048
checkpointer:
  _component_: torchtune.training.FullModelHFCheckpointer
  checkpoint_dir: /models/llama
  checkpoint_files: [one.safetensors]
  recipe_checkpoint: null
  output_dir: ${output_dir}
  model_type: LLAMA3
resume_from_checkpoint: False
dataset:
  _component_: torchtune.datasets.alpaca_dataset
  source: json
  data_files: rows.json
  packed: False
seed: null
shuffle: True
batch_size: 2
optimizer:
  _component_: torch.optim.AdamW
  fused: True
  weight_decay: 0.01
  lr: 3e-4
lr_scheduler:
  _component_: torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup
  num_warmup_steps: 100
loss:
  _component_: torchtune.modules.loss.LinearCrossEntropyLoss
epochs: 1
max_steps_per_epoch: null
gradient_accumulation_steps: 8
clip_grad_norm: null
compile: False
metric_logger:
  _component_: torchtune.training.metric_logging.DiskLogger
  log_dir: ${output_dir}/logs
log_every_n_steps: 1
device: cuda
dtype: bf16
enable_activation_checkpointing: True
profiler:
  _component_: torchtune.training.setup_torch_profiler
  enabled: False
)";

TEST(Import, TorchtunesComponentsGiveExactlyThisRecipe) {
  const ImportedRecipe recipe = imported(kTorchtune);
  EXPECT_EQ(recipe.tool, "torchtune");
  EXPECT_THAT(recipe.missing, IsEmpty());
  EXPECT_THAT(keys_with(recipe, Fate::kUnknown), IsEmpty());
  EXPECT_THAT(keys_with(recipe, Fate::kRefused), IsEmpty());
  EXPECT_EQ(every_key(recipe.text), every_key(R"(
model: {path: /models/llama, dtype: bfloat16}
quantization: {method: nf4}
lora:
  rank: 8
  alpha: 16
  targets: [q_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]
data:
  train: [{path: rows.json, format: alpaca, fields: {system: none, history: none}}]
  train_on: all
  sequence_length: 2048
  packing: false
  on_overlength: truncate_right
  shuffle: true
optim:
  name: adamw
  lr: 3e-4
  weight_decay: 0.01
  schedule: cosine
  warmup_steps: 100
  max_grad_norm: 0
train:
  epochs: 1
  micro_batch_size: 2
  gradient_accumulation_steps: 8
  gradient_checkpointing: true
  device: cuda
  log_every: 1
output: {dir: /tmp/tune}
)"));
}

constexpr const char* kTrl = R"(
model_name_or_path: org/model
dataset_name: rows.jsonl
load_in_4bit: true
use_peft: true
lora_r: 16
lora_alpha: 32
lora_target_modules: all-linear
max_length: 2048
packing: true
assistant_only_loss: true
learning_rate: 2.0e-4
lr_scheduler_type: constant_with_warmup
warmup_ratio: 0.03
per_device_train_batch_size: 4
gradient_accumulation_steps: 2
max_steps: 100
num_train_epochs: 2
optim: paged_adamw_8bit
gradient_checkpointing: true
bf16: true
logging_steps: 5
save_strategy: no
output_dir: out
report_to: none
seed: 1
)";

TEST(Import, TrlsArgumentsGiveExactlyThisRecipe) {
  const ImportedRecipe recipe = imported(kTrl);
  EXPECT_EQ(recipe.tool, "TRL");
  EXPECT_THAT(recipe.missing, IsEmpty());
  EXPECT_THAT(keys_with(recipe, Fate::kUnknown), IsEmpty());
  EXPECT_THAT(keys_with(recipe, Fate::kRefused), IsEmpty());
  EXPECT_EQ(every_key(recipe.text), every_key(R"(
model: {path: org/model}
quantization: {method: nf4, double_quant: false}
lora: {rank: 16, alpha: 32, dropout: 0.05, targets: all-linear}
data:
  train: [{path: rows.jsonl, format: chat}]
  sequence_length: 2048
  packing: true
  train_on: assistant
  on_overlength: truncate_right
optim: {name: paged_adamw_8bit, lr: 2.0e-4, schedule: constant, warmup_ratio: 0.03}
train:
  max_steps: 100
  micro_batch_size: 4
  gradient_accumulation_steps: 2
  gradient_checkpointing: true
  log_every: 5
  seed: 1
output: {dir: out}
)"));
  ASSERT_NE(outcome_of(recipe, "num_train_epochs"), nullptr);
  EXPECT_EQ(outcome_of(recipe, "num_train_epochs")->fate, Fate::kWithoutEffect);
}

constexpr const char* kPeft = R"({
  "auto_mapping": null,
  "base_model_name_or_path": "org/model",
  "bias": "none",
  "fan_in_fan_out": false,
  "inference_mode": true,
  "init_lora_weights": true,
  "layers_pattern": null,
  "layers_to_transform": [0, 1],
  "loftq_config": {},
  "lora_alpha": 32,
  "lora_dropout": 0.1,
  "megatron_core": "megatron.core",
  "modules_to_save": ["lm_head"],
  "peft_type": "LORA",
  "r": 64,
  "rank_pattern": {"down_proj": 32},
  "target_modules": ["q_proj", "v_proj"],
  "task_type": "CAUSAL_LM",
  "use_dora": false,
  "use_rslora": true
})";

TEST(Import, AnAdaptersConfigurationLeavesDataAndLengthToFillIn) {
  const ImportedRecipe recipe = imported(kPeft);
  EXPECT_EQ(recipe.tool, "PEFT");
  EXPECT_THAT(keys_with(recipe, Fate::kUnknown), IsEmpty());
  EXPECT_THAT(keys_with(recipe, Fate::kRefused), IsEmpty());
  EXPECT_THAT(recipe.missing, ElementsAre(HasSubstr("data.train: "), HasSubstr("train.epochs: ")));
  EXPECT_THAT(recipe.text, HasSubstr("# data:\n  # Fill in: the rows"));
  const std::vector<std::string> filled = {"data.train=[{path: rows.jsonl}]", "train.epochs=1"};
  const std::string theirs = write_recipe(parse_recipe(recipe.text, "r.yaml", "/base", filled));
  const std::string ours = write_recipe(parse_recipe(
      "model: {path: org/model}\n"
      "lora: {rank: 64, alpha: 32, dropout: 0.1, targets: [q_proj, v_proj], bias: none,\n"
      "       layers_to_transform: [0, 1], modules_to_save: [lm_head], use_rslora: true,\n"
      "       rank_pattern: {down_proj: 32}}\n"
      "output: {dir: imported-run}\n",
      "r.yaml", "/base", filled));
  EXPECT_EQ(theirs, ours);
}

TEST(Import, TheToolIsToldByTheKeys) {
  EXPECT_EQ(imported(kAxolotl).tool, "Axolotl");
  EXPECT_EQ(imported(kLlamaFactory).tool, "LLaMA-Factory");
  EXPECT_EQ(imported(kTorchtune).tool, "torchtune");
  EXPECT_EQ(imported(kTrl).tool, "TRL");
  EXPECT_EQ(imported(kPeft).tool, "PEFT");
  EXPECT_EQ(imported(kTrl, "llama-factory").tool, "LLaMA-Factory");
}

}  // namespace
}  // namespace qlora::recipes
