// The keys that the examples of other tools have, with values made up here: none is unknown.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "base/error.h"
#include "recipes/import/import_recipe.h"
#include "recipes/yaml/recipe_yaml.h"
#include "tests/support/imported_recipe.h"

namespace qlora::recipes {
namespace {
using test::imported;
using test::keys_with;
using test::outcome_of;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::IsSupersetOf;

// Of Axolotl's examples of LoRA, QLoRA and DPO.
constexpr const char* kAxolotl = R"(
{base_model: org/model, model_type: AutoModelForCausalLM, tokenizer_type: AutoTokenizer, hub_model_id: me/it, trust_remote_code: true,
 load_in_8bit: false, load_in_4bit: true, strict: false, rl: dpo, chat_template: llama3, train_on_inputs: false,
 datasets: [{path: rows.jsonl, type: chat_template.default, field_messages: conversation, field_chosen: chosen,
             field_rejected: rejected, message_property_mappings: {role: role, content: content}, ds_type: json, split: train}],
 dataset_prepared_path: prepared, val_set_size: 0.05, output_dir: ./out, adapter: qlora, lora_model_dir: null, sequence_len: 2048,
 sample_packing: false, eval_sample_packing: false, pad_to_sequence_len: true, lora_r: 32, lora_alpha: 16, lora_dropout: 0.05,
 lora_target_modules: null, lora_target_linear: true, lora_fan_in_fan_out: null, lora_modules_to_save: [embed_tokens, lm_head],
 wandb_project: null, wandb_entity: null, wandb_watch: null, wandb_name: null, wandb_log_model: null, gradient_accumulation_steps: 4,
 micro_batch_size: 2, num_epochs: 1, optimizer: paged_adamw_32bit, lr_scheduler: cosine, learning_rate: 0.0002, group_by_length: false,
 bf16: auto, fp16: null, tf32: false, gradient_checkpointing: true, gradient_checkpointing_kwargs: {use_reentrant: false},
 early_stopping_patience: null, resume_from_checkpoint: null, local_rank: null, logging_steps: 1, xformers_attention: null,
 flash_attention: true, loss_watchdog_threshold: 5.0, loss_watchdog_patience: 3, warmup_steps: 10, evals_per_epoch: 4,
 eval_table_size: null, eval_max_new_tokens: 128, saves_per_epoch: 1, save_first_step: true, save_safetensors: true, debug: null,
 deepspeed: zero2.json, weight_decay: 0.0, fsdp: [full_shard], fsdp_config: {fsdp_offload_params: true, fsdp_use_orig_params: false},
 special_tokens: {bos_token: <s>, eos_token: </s>, unk_token: <unk>, pad_token: </s>}, plugins: [axolotl.integrations.liger.LigerPlugin],
 liger_rope: true, liger_rms_norm: true, liger_glu_activation: true, liger_fused_linear_cross_entropy: true,
 lora_mlp_kernel: true, lora_qkv_kernel: true, lora_o_kernel: true})";

// Of Axolotl's examples of process rewards, pruned bases and mixtures of experts in NVFP4.
constexpr const char* kAxolotlRewards = R"(
{base_model: org/model, model_type: AutoModelForTokenClassification, num_labels: 2, process_reward_model: true, adapter: lora,
 datasets: [{path: rows.jsonl, type: stepwise_supervised, step_separator: "\n", max_completion_length: 512,
             train_on_last_step_only: true}],
 llmcompressor: {recipe: {finetuning_stage: {finetuning_modifiers: {ConstantPruningModifier: {targets: ["re:.*proj.weight"], start: 0}}}},
                 save_compressed: true}})";
constexpr const char* kAxolotlExperts = R"(
{base_model: org/model, adapter: lora, plugins: [axolotl.integrations.kernels.KernelsPlugin], use_kernels: true,
 use_scattermoe: true, use_dsv4_kernels: true, use_glm_dsa_kernels: true, dsv4_fp4_grouped_mode: nvfp4,
 nvfp4_merge_aware: true, nvfp4_merge_aware_start_step: 0.1, expert_backend: scattermoe, moe_bnb_fast: true})";

// Of LLaMA-Factory's examples of LoRA and QLoRA, supervised and by preferences.
constexpr const char* kLlamaFactory = R"(
{model_name_or_path: org/model, quantization_bit: 4, quantization_method: bnb, double_quantization: false, trust_remote_code: true,
 image_max_pixels: 262144, video_max_pixels: 16384, stage: dpo, do_train: true, finetuning_type: lora, lora_rank: 8, lora_target: all,
 pref_beta: 0.1, pref_loss: sigmoid, deepspeed: zero3.json, dataset: pairs, template: llama3, cutoff_len: 2048, max_samples: 1000,
 overwrite_cache: true, preprocessing_num_workers: 16, dataloader_num_workers: 4, tokenized_path: tokens, output_dir: saves/it,
 logging_steps: 10, save_steps: 500, plot_loss: true, overwrite_output_dir: true, save_only_model: false, report_to: none,
 per_device_train_batch_size: 1, gradient_accumulation_steps: 8, learning_rate: 5.0e-6, num_train_epochs: 3.0,
 lr_scheduler_type: cosine, warmup_ratio: 0.1, bf16: true, ddp_timeout: 180000000, resume_from_checkpoint: null, eval_dataset: pairs,
 val_size: 0.1, per_device_eval_batch_size: 1, eval_strategy: steps, eval_steps: 500, use_badam: false, pure_bf16: true,
 streaming: false, buffer_size: 128, loraplus_lr_ratio: 16.0, pissa_init: false, flash_attn: fa2})";

// Of torchtune's recipes of LoRA and QLoRA on one device, and of DPO.
constexpr const char* kTorchtune = R"(
{output_dir: /tmp/it,
 model: {_component_: torchtune.models.llama3_2.qlora_llama3_2_1b, lora_attn_modules: [q_proj, v_proj, output_proj],
         apply_lora_to_mlp: true, apply_lora_to_output: false, lora_rank: 64, lora_alpha: 128, lora_dropout: 0.0},
 tokenizer: {_component_: torchtune.models.llama3.llama3_tokenizer, path: m/tokenizer.model, max_seq_len: null},
 checkpointer: {_component_: torchtune.training.FullModelHFCheckpointer, checkpoint_dir: m, checkpoint_files: [model.safetensors],
                recipe_checkpoint: null, output_dir: "${output_dir}", model_type: LLAMA3_2},
 resume_from_checkpoint: false, save_adapter_weights_only: false,
 dataset: {_component_: torchtune.datasets.alpaca_cleaned_dataset, packed: false, split: "train[:95%]"},
 dataset_val: {_component_: torchtune.datasets.alpaca_cleaned_dataset, split: "train[95%:]"}, run_val_every_n_steps: null,
 batch_size_val: 1, seed: null, shuffle: true, batch_size: 4,
 optimizer: {_component_: torch.optim.AdamW, fused: true, weight_decay: 0.01, lr: 3e-4},
 lr_scheduler: {_component_: torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup, num_warmup_steps: 100},
 loss: {_component_: torchtune.modules.loss.LinearCrossEntropyLoss}, epochs: 1, max_steps_per_epoch: null, clip_grad_norm: null,
 gradient_accumulation_steps: 8, compile: false, device: cuda, dtype: bf16, enable_activation_checkpointing: false,
 enable_activation_offloading: false, log_every_n_steps: 1, log_peak_memory_stats: true, log_level: INFO,
 metric_logger: {_component_: torchtune.training.metric_logging.DiskLogger, log_dir: "${output_dir}/logs"},
 profiler: {_component_: torchtune.training.setup_torch_profiler, enabled: false, output_dir: "${output_dir}/p", cpu: true,
            cuda: true, profile_memory: false, with_stack: false, record_shapes: true, with_flops: false, wait_steps: 5,
            warmup_steps: 3, active_steps: 2, num_cycles: 1}})";

// Of torchtune's recipe that mixes data sets.
constexpr const char* kTorchtuneMixture = R"(
{model: {_component_: torchtune.models.llama3_2.lora_llama3_2_1b, lora_attn_modules: [q_proj]}, tokenizer: {max_seq_len: 512},
 checkpointer: {checkpoint_dir: m}, dataloader: {shuffle: true, num_workers: 4, packed: false}, epochs: 1,
 datasets: [{_component_: torchtune.datasets.alpaca_cleaned_dataset, source: json, data_files: a.json, split: train, weight: 3.0},
            {_component_: torchtune.datasets.instruct_dataset, source: json, data_files: b.json, weight: 1.0, train_on_input: true,
             shuffle: true, streaming: false, num_workers: 2, parallel_method: thread}]})";

// Of the configurations in TRL's documentation of its commands.
constexpr const char* kTrl = R"(
{model_name_or_path: org/model, dataset_name: org/rows, dataset_config: null, dataset_train_split: train, dataset_test_split: test,
 learning_rate: 2.0e-4, num_train_epochs: 1, packing: true, per_device_train_batch_size: 2, gradient_accumulation_steps: 8,
 gradient_checkpointing: true, eos_token: "<|im_end|>", eval_strategy: steps, eval_steps: 100, use_peft: true, lora_r: 32,
 lora_alpha: 16, lora_dropout: 0.05, lora_target_modules: [q_proj, v_proj], load_in_4bit: true, attn_implementation: sdpa,
 dtype: bfloat16, output_dir: out, push_to_hub: false, hub_model_id: me/it, max_length: 2048, logging_steps: 25, logging_strategy: steps,
 logging_dir: logs, bf16: true, report_to: [wandb], run_name: it, save_strategy: steps, save_steps: 200, dataset_num_proc: 4,
 dataset_text_field: text, warmup_ratio: 0.03, lr_scheduler_type: cosine, remove_unused_columns: false, use_liger_kernel: true,
 torch_compile: false, ddp_find_unused_parameters: false, seed: 42})";

TEST(ImportExamples, HaveNoKeyThatIsUnknown) {
  const std::pair<const char*, const char*> examples[] = {{"axolotl", kAxolotl},
                                                          {"axolotl", kAxolotlRewards},
                                                          {"axolotl", kAxolotlExperts},
                                                          {"llama-factory", kLlamaFactory},
                                                          {"torchtune", kTorchtune},
                                                          {"torchtune", kTorchtuneMixture},
                                                          {"trl", kTrl}};
  for (const auto& [tool, text] : examples)
    EXPECT_THAT(keys_with(imported(text, tool), Fate::kUnknown), IsEmpty()) << tool << text;
}

TEST(ImportExamples, WhatAxolotlDoesBeyondAdaptersIsRefusedAndItsKernelsAreNot) {
  const ImportedRecipe rewards = imported(kAxolotlRewards, "axolotl");
  for (const char* key : {"datasets[].max_completion_length", "datasets[].train_on_last_step_only",
                          "process_reward_model", "llmcompressor"})
    EXPECT_THAT(keys_with(rewards, Fate::kRefused), Contains(key));
  const ImportedRecipe experts = imported(kAxolotlExperts, "axolotl");
  EXPECT_THAT(
      keys_with(experts, Fate::kRefused),
      ElementsAre("dsv4_fp4_grouped_mode", "nvfp4_merge_aware", "nvfp4_merge_aware_start_step"));
  EXPECT_THAT(keys_with(experts, Fate::kWithoutEffect),
              IsSupersetOf({"use_dsv4_kernels", "use_glm_dsa_kernels", "expert_backend"}));
}

TEST(ImportExamples, TorchtunesListOfComponentsIsAMixtureOfDataSets) {
  const ImportedRecipe mixture = imported(kTorchtuneMixture, "torchtune");
  EXPECT_THAT(mixture.missing, IsEmpty());
  const Recipe recipe = parse_recipe(mixture.text, "r.yaml", "/base");
  ASSERT_EQ(recipe.data.train.size(), 2U);
  EXPECT_EQ(recipe.data.train[0].weight, 3);
  EXPECT_EQ(recipe.data.train[1].weight, 1);
  EXPECT_EQ(recipe.data.train[1].fields.at("instruction"), "input");
  EXPECT_EQ(recipe.data.train_on, data::TrainOn::kAll);
}

TEST(ImportExamples, TorchtunesListOfOtherRowsIsRefusedWithTheirName) {
  const ImportedRecipe recipe = imported(
      "{model: {lora_rank: 8}, datasets: [{_component_: torchtune.datasets.alpaca_dataset},\n"
      " {source: org/pictures, split: train, weight: 1.0,\n"
      "  transform: {_component_: torchtune.datasets.multimodal.the_cauldron_transform}}]}",
      "torchtune");
  ASSERT_NE(outcome_of(recipe, "datasets"), nullptr);
  EXPECT_EQ(outcome_of(recipe, "datasets")->fate, Fate::kRefused);
  EXPECT_THAT(outcome_of(recipe, "datasets")->reason, HasSubstr("multimodal.the_cauldron_"));
}

std::string refusal(const std::string& text, const std::string& from) {
  try {
    imported(text, from);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

// Of the examples/v1, examples/megatron and examples/megatron_bridge of LLaMA-Factory.
TEST(ImportExamples, OtherFormsOfLlamaFactoryAreRefusedWithTheOneThatIsRead) {
  const char* const v1 =
      "{model: org/model, model_class: llm, peft_config: {name: lora, r: 16},\n"
      " dist_config: {name: fsdp2, dcp_path: null}, quant_config: null, train_dataset: rows.yaml,\n"
      " optim_config: {name: muon}, batching_strategy: dynamic_batching, output_dir: out,\n"
      " micro_batch_size: 1, cutoff_len: 2048, learning_rate: 1.0e-4, max_steps: 10}";
  const char* const megatron =
      "{model_name_or_path: org/model, stage: sft, do_train: true, finetuning_type: lora,\n"
      " dataset: rows, cutoff_len: 2048, pipeline_model_parallel_size: 4, moe_grouped_gemm: true,\n"
      " use_distributed_optimizer: true, expert_model_parallel_size: 2}";
  for (const char* from : {"", "llama-factory"}) {
    EXPECT_THAT(refusal(v1, from),
                AllOf(HasSubstr("theirs.yaml: it is a file for LLaMA-Factory's v1 (model_class,"),
                      HasSubstr("examples/train_qlora"), HasSubstr("finetuning_type")));
    EXPECT_THAT(refusal(megatron, from),
                AllOf(HasSubstr("Megatron trainers (pipeline_model_parallel_size, "),
                      HasSubstr("examples/train_qlora"), HasSubstr("finetuning_type")));
  }
  EXPECT_EQ(refusal(kLlamaFactory, ""), "");
}

}  // namespace
}  // namespace qlora::recipes
