// The arguments of `trl sft`, `trl dpo` and scripts like them: transformers' TrainingArguments,
// TRL's configurations, model and script arguments.
#include <fmt/format.h>

#include <algorithm>

#include "recipes/import/conversions.h"
#include "recipes/import/datasets.h"
#include "recipes/import/key_groups.h"

namespace qlora::recipes {
namespace {

constexpr const char* kSplits = "a split is a file here: name it in data.train or data.eval";

// Which of the two 4-bit types; nothing without load_in_4bit.
void read_quant_type(const Found& found, const ToolKey& key, Draft& draft) {
  if (!is_true(beside(found, "load_in_4bit")))
    return draft.without_effect(found, "load_in_4bit is off");
  draft.set(found, key.here, plain(found.value));
}

void read_four_bit(const Found& found, const ToolKey& key, Draft& draft) {
  if (!is_true(&found.value)) return draft.without_effect(found, "it is off");
  draft.set(found, key.here, Node::string(text(beside(found, "bnb_4bit_quant_type"), "nf4")));
}

void read_double_quant(const Found& found, const ToolKey& key, Draft& draft) {
  if (!is_true(beside(found, "load_in_4bit")))
    return draft.without_effect(found, "load_in_4bit is off");
  draft.set(found, key.here, plain(found.value));
}

void read_answers_only(const Found& found, const ToolKey& key, Draft& draft) {
  const bool other = is_true(beside(
      found, found.key == "completion_only_loss" ? "assistant_only_loss" : "completion_only_loss"));
  if (other && !is_true(&found.value)) return draft.without_effect(found, "it is off");
  draft.set(found, key.here, Node::string(is_true(&found.value) ? "assistant" : "all"));
}

bool cuts_no_rows(const Node& root) {
  const Node::Entry* longest = root.find("max_length");
  return longest && longest->value.kind == Node::Kind::kNull && !in_file(root, "max_seq_length");
}

// What is beyond the length goes into another sequence; otherwise it is cut off. bfd-requeue is
// what the strategy was called formerly.
bool splits_rows(const Node& root) {
  const std::string strategy = text(in_file(root, "packing_strategy"));
  return is_true(in_file(root, "packing")) &&
         (strategy == "bfd_split" || strategy == "bfd-requeue");
}

void read_truncation(const Found& found, const ToolKey& key, Draft& draft) {
  if (cuts_no_rows(found.root)) return draft.without_effect(found, "max_length is null");
  if (splits_rows(found.root))
    return draft.without_effect(found, "packing_strategy splits rows that are too long");
  if (is_true(in_file(found.root, "packing")))
    return draft.without_effect(found,
                                "packing keeps the beginning of a row that is too long, whatever "
                                "it says");
  const bool end = found.value.text == "keep_end";
  draft.set(found, key.here, Node::string(end ? "truncate_left" : "truncate_right"));
}

void read_packing_strategy(const Found& found, const ToolKey& key, Draft& draft) {
  if (splits_rows(found.root)) return draft.set(found, "data.on_overlength", Node::string("split"));
  if (!is_true(in_file(found.root, "packing")))
    return draft.without_effect(found, "packing is off");
  if (found.value.text == "wrapped")
    return draft.refuse(found,
                        "rows are not cut where a sequence ends; data.packing puts whole "
                        "rows into one");
  draft.without_effect(found, key.note);
}

void read_split(const Found& found, const ToolKey&, Draft& draft) {
  if (found.value.text == "train") return draft.without_effect(found, kSplits);
  draft.refuse(found, kSplits);
}

void read_use_peft(const Found& found, const ToolKey&, Draft& draft) {
  if (!is_true(&found.value)) return draft.refuse(found, kWholeModel);
  draft.without_effect(found, "adapters are what is trained");
}

// A template's file, or a directory or name of a model, whose own template is taken.
void read_template_path(const Found& found, const ToolKey& key, Draft& draft) {
  const std::string path = text(&found.value);
  const std::string file = path + "/chat_template.jinja";
  if (path.ends_with(".jinja") || path.ends_with(".j2"))
    return draft.set(found, key.here, plain(found.value));
  if (is_there(file, draft.directory())) return draft.set(found, key.here, Node::string(file));
  draft.refuse(found,
               "it names a model whose template is taken, and the model's own is taken here; "
               "data.chat_template names a file, such as that model's chat_template.jinja");
}

std::vector<ToolKey> model_keys() {
  std::vector<ToolKey> keys = model_path("model_name_or_path", "model_revision");
  add_missing(
      keys,
      {dtype("dtype", "model.dtype"), dtype("torch_dtype", "model.dtype"),
       idle("trust_remote_code", "no code of a model's directory is run"),
       idle("attn_implementation", kAttention), same("device_map", "model.device_map"),
       memory_limits("max_memory"),
       refused("model_init_kwargs", "model.dtype is what a model takes here"),
       read_by("load_in_4bit", "quantization.method", "", read_four_bit, "nf4"),
       when_true("load_in_8bit", "quantization.method", "int8"),
       read_by("bnb_4bit_quant_type", "quantization.method", "", read_quant_type),
       read_by("use_bnb_nested_quant", "quantization.double_quant", "", read_double_quant),
       read_by("bnb_4bit_use_double_quant", "quantization.double_quant", "", read_double_quant),
       idle("bnb_4bit_quant_storage", "weights are stored as their 4 bits"),
       bf16({"fp16", "dtype", "torch_dtype"}),
       read_by("bnb_4bit_compute_dtype", "train.compute_dtype", "",
               dtype("", "train.compute_dtype").convert)});
  return keys;
}

std::vector<ToolKey> lora_keys() {
  return {read_by("use_peft", "", "adapters are what is trained", read_use_peft),
          same("lora_r", "lora.rank"),
          same("lora_alpha", "lora.alpha"),
          trl_dropout(),
          list_of("lora_target_modules", "lora.targets"),
          list_of("lora_target_parameters", "lora.target_parameters"),
          list_of("lora_modules_to_save", "lora.modules_to_save"),
          idle("lora_task_type", "the model's architecture says it"),
          same("use_rslora", "lora.use_rslora"),
          same("use_dora", "lora.use_dora")};
}

std::vector<ToolKey> data_keys() {
  return {read_by("dataset_name", "data.train", "", read_trl_dataset_name),
          read_by("datasets", "data.train", "", read_trl_datasets),
          {"datasets[].path", "data.train[].path"},
          {"datasets[].data_files", "data.train[].path"},
          read_by("datasets[].split", "", kSplits, read_split),
          refused("datasets[].name", "a configuration is a file here: name it in data.train"),
          refused("datasets[].data_dir", "data.train names files"),
          idle("datasets[].columns", "data.train[].fields names columns where that is needed"),
          refused("datasets[].fraction", "the file must hold the rows to train on"),
          refused("dataset_config", "a configuration is a file here: name it in data.train"),
          read_by("dataset_train_split", "", kSplits, read_split),
          read_by("dataset_test_split", "data.eval", "a split is a file here", read_trl_test_split),
          share("test_split_size", "data.eval_fraction"),
          read_by("dataset_text_field", "data.train[].fields", "of rows of format text",
                  read_trl_text_field),
          idle("dataset_streaming", "rows are read a piece at a time in any case"),
          idle("streaming", "rows are read a piece at a time in any case"),
          idle("dataset_num_proc", "rows are prepared on all processors"),
          idle("dataset_batch_size", "rows are prepared on all processors"),
          refused("dataset_kwargs", "nothing of it has a key here"),
          longest_row("max_length"),
          same("max_seq_length", "data.sequence_length"),
          read_by("truncation_mode", "data.on_overlength", "", read_truncation),
          same("packing", "data.packing"),
          read_by("packing_strategy", "", "data.packing puts whole rows into a sequence",
                  read_packing_strategy),
          read_by("completion_only_loss", "data.train_on", "true is assistant", read_answers_only),
          read_by("assistant_only_loss", "data.train_on", "true is assistant", read_answers_only),
          read_by("chat_template_path", "data.chat_template", "", read_template_path)};
}

std::vector<ToolKey> other_keys() {
  std::vector<ToolKey> keys = {
      idle("env", "no variables are set from a recipe"),
      idle("ignore_bias_buffers", kNoSharding),
      refused("router_aux_loss_coef", "no loss of routers is added"),
      refused("eos_token", "answers end with the token that the model's template has"),
      idle("pad_token", kNoPadding),
      idle("eval_packing", kEvaluationPacking),
      idle("activation_offloading", kMemory)};
  add_missing(keys, idle_all({"padding_free", "pad_to_multiple_of"}, kNoPadding));
  return keys;
}

void finish(const Node& root, Draft& draft) {
  if (!in_file(root, "use_peft") && !in_file(root, "lora_r"))
    draft.warn("TRL trains the whole model without use_peft; here adapters are trained");
  if (is_true(in_file(root, "load_in_4bit")))
    draft.set_default("quantization.double_quant", Node::scalar("false"), "TRL");
  finish_trl_preferences(root, draft);
  finish_trl_row_order(root, draft);
  if (cuts_no_rows(root))
    draft.warn(fmt::format(
        "TRL cuts no rows where max_length is null{}; here data.sequence_length is 1024, and a "
        "longer row is an error",
        may_be_orpo_in_trl(root) ? ", but its ORPO takes 512 then" : ""));
  const bool compares = learns_preferences(draft);
  draft.set_default("optim.lr", Node::scalar(compares ? "1e-06" : "2e-05"), "TRL");
  const std::vector<Node> datasets = draft.datasets("data.train");
  const bool completes =
      !datasets.empty() && std::ranges::all_of(datasets, [](const Node& dataset) {
        return text(in_file(dataset, "format")) == "completion";
      });
  if (!compares)
    draft.set_default("data.train_on", Node::string(completes ? "assistant" : "all"), "TRL");
}

}  // namespace

Tool trl_tool() {
  Tool tool{"trl", "TRL", {}, {}, finish};
  for (const auto& part : {model_keys(), lora_keys(), data_keys(), trl_row_order_keys(),
                           trl_preference_keys(), other_keys(), training_argument_keys()})
    add_missing(tool.keys, part);
  tool.defaults = {{"lora.dropout", "0.05"},    {"lora.targets", "[peft-default]"},
                   {"data.packing", "false"},   {"data.on_overlength", "truncate_right"},
                   {"optim.name", "adamw"},     {"optim.schedule", "linear"},
                   {"train.epochs", "3"},       {"train.micro_batch_size", "8"},
                   {"output.dir", "trl_output"}};
  return tool;
}

}  // namespace qlora::recipes
