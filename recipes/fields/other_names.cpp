#include "recipes/fields/other_names.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "recipes/fields/fields.h"
#include "recipes/fields/later_keys.h"
#include "recipes/fields/values_in_words.h"
#include "recipes/import/tool.h"

namespace qlora::recipes {
namespace {

// Names of LitGPT, surogate and of scripts, whose files are not imported.
std::vector<OtherName> names_without_import() {
  return {
      {"pretrained_model_name_or_path", "model.path", ""},
      {"precision", "train.compute_dtype", "write " + values_in_words("train.compute_dtype")},
      {"quantize", "quantization.method", "bnb.int8 is int8", "nf4"},
      {"qlora_bnb", "quantization.method", "", "nf4"},
      {"quant_type", "quantization.method", ""},
      {"bnb_config_kwargs", "quantization.method", "with double_quant and block_size beside it"},
      {"quantization_config", "quantization.method", "with double_quant and block_size beside it"},
      {"use_double_quant", "quantization.double_quant", ""},
      {"qlora_bnb_double_quant", "quantization.double_quant", ""},
      {"bnb_4bit_blocksize", "quantization.block_size", ""},
      {"llm_int8_skip_modules", "quantization.skip_modules", ""},
      {"llm_int8_enable_fp32_cpu_offload", "quantization.fp32_cpu_offload", "with method int8"},
      {"modules_to_not_convert", "quantization.skip_modules", ""},
      {"lora_query", "lora.targets", "", "q_proj"},
      {"lora_key", "lora.targets", "", "k_proj"},
      {"lora_value", "lora.targets", "", "v_proj"},
      {"lora_projection", "lora.targets", "", "o_proj"},
      {"lora_mlp", "lora.targets", "", "[gate_proj, up_proj, down_proj]"},
      {"lora_head", "lora.targets", "add lm_head"},
      {"loftq_iter", "lora.loftq", "beside lora.init: loftq", "{iterations: 1}"},
      {"peft", "lora.init", "of loftq_config; lora.loftq has the iterations", "loftq"},
      {"use_stochastic_rounding", "optim.stochastic_rounding", ""},
      {"train_dataset", "data.train", ""},
      {"train_file", "data.train", ""},
      {"validation_file", "data.eval", ""},
      {"val_split_fraction", "data.eval_fraction", ""},
      {"validation_split_ratio", "data.eval_fraction", ""},
      {"train.max_seq_length", "data.sequence_length", ""},
      {"mask_prompt", "data.train_on", "true is assistant, false is all"},
      {"loss_scale", "data.train_on", "write " + values_in_words("data.train_on")},
      {"ds_type", "data.train[].format", ""},
      {"formatting", "data.train[].format", ""},
      {"columns", "data.train[].fields", ""},
      {"optimizer.class_path", "optim.name", ""},
      {"beta1", "optim.betas", "write [beta1, beta2]"},
      {"beta2", "optim.betas", "write [beta1, beta2]"},
      {"epsilon", "optim.eps", ""},
      {"scheduler", "optim.schedule", ""},
      {"lr_warmup_steps", "optim.warmup_steps", ""},
      {"train.lr_warmup_steps", "optim.warmup_steps", ""},
      {"gradient_clipping", "optim.max_grad_norm", ""},
      {"max_norm", "optim.max_grad_norm", ""},
      {"train.max_norm", "optim.max_grad_norm", ""},
      {"global_batch_size", "train.gradient_accumulation_steps",
       "the global batch divided by train.micro_batch_size"},
      {"recompute", "train.gradient_checkpointing", ""},
      {"save_interval", "train.save_every", "in steps"},
      {"train.save_interval", "train.save_every", "in steps"},
      {"out_dir", "output.dir", ""},
      {"log_interval", "train.log_every", "in steps"},
      {"train.log_interval", "train.log_every", "in steps"},
      {"logger_name", "",
       "metrics.jsonl and TensorBoard files are written to output.dir without a key; leave it "
       "out"}};
}

std::string plain(std::string name) {
  for (char& c : name)
    c = c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return name;
}

std::string last_part(const std::string& name) { return name.substr(name.rfind('.') + 1); }

// The table, in which the first entry of a name counts.
class Names {
 public:
  Names() {
    for (const std::string& key : all_keys()) words_.insert(last_part(key));
  }

  void add(const OtherName& other) {
    if (seen_.insert(other.name).second) all_.push_back(other);
  }
  // What needs no key here must not be called like one.
  void add_unless_ours(const OtherName& other) {
    if (!words_.contains(last_part(other.name))) add(other);
  }
  std::vector<OtherName> take() { return std::move(all_); }

 private:
  std::set<std::string> words_, seen_;
  std::vector<OtherName> all_;
};

template <typename Visit>
void for_each_tool_key(const Visit& visit) {
  for (const Tool& tool : tools())
    for (const ToolKey& key : tool.keys) visit(key);
}

bool is_of_list(const ToolKey& key) { return key.name.find("[]") != std::string::npos; }
bool is_nested(const ToolKey& key) { return key.name.find('.') != std::string::npos; }

std::vector<OtherName> make_names() {
  Names names;
  for_each_tool_key([&](const ToolKey& key) {
    if (!key.here.empty() && !is_of_list(key)) names.add({key.name, key.here, key.note, key.value});
  });
  for (const OtherName& other : names_without_import()) names.add(other);
  for_each_tool_key([&](const ToolKey& key) {
    const std::string word = last_part(key.name);
    if (!key.here.empty() && is_nested(key) && word != "_component_")
      names.add_unless_ours({word, key.here, key.note, key.value});
  });
  for_each_tool_key([&](const ToolKey& key) {
    if (key.here.empty() && !is_nested(key))
      names.add_unless_ours({key.name, "", key.note + (key.is_refused ? "" : "; leave it out")});
  });
  return names.take();
}

bool matches(const OtherName& other, const std::string& name) {
  return other.name.ends_with('*') ? name.starts_with(other.name.substr(0, other.name.size() - 1))
                                   : other.name == name;
}

}  // namespace

const std::vector<OtherName>& other_names() {
  static const std::vector<OtherName> table = make_names();
  return table;
}

const OtherName* find_other_name(const std::string& section, const std::string& name) {
  const OtherName* by_pattern = nullptr;
  for (const std::string& wanted : {plain(section + "." + name), plain(name)})
    for (const OtherName& other : other_names()) {
      if (other.name == wanted) return &other;
      if (!by_pattern && matches(other, wanted)) by_pattern = &other;
    }
  return by_pattern;
}

std::string other_name_sentence(const OtherName& other) {
  if (other.here.empty()) return other.note;
  if (const std::string later = later_key(other.here); !later.empty()) return later;
  return "it is " + other.here + " here" + (other.value.empty() ? "" : ": write " + other.value) +
         (other.note.empty() ? "" : " (" + other.note + ")");
}

}  // namespace qlora::recipes
