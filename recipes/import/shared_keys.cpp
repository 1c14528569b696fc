// Keys that several tools have under one name or another: what most of them hand to transformers.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "optim/optimizer_names.h"
#include "recipes/import/conversions.h"

namespace qlora::recipes {
namespace {

double number(const Node& node) {
  double value = 0;
  std::from_chars(node.text.data(), node.text.data() + node.text.size(), value);
  return value;
}

Node number_node(double value) { return Node::scalar(fmt::format("{}", value)); }

const Words kSchedules = {{"constant_with_warmup", "constant"},
                          {"reduce_lr_on_plateau", "reduce_on_plateau"},
                          {"cosine_with_min_lr", "cosine"},
                          {"warmup_stable_decay", "wsd"}};

const Words kDtypes = {{"bf16", "bfloat16"},         {"fp16", "float16"},
                       {"fp32", "float32"},          {"torch.bfloat16", "bfloat16"},
                       {"torch.float16", "float16"}, {"torch.float32", "float32"},
                       {"bf16-true", "bfloat16"},    {"half", "float16"}};

// The names of templates in Axolotl and LLaMA-Factory, and the built-in ones that are the same.
const Words kTemplates = {{"chatml", "chatml"},   {"alpaca", "alpaca"},      {"vicuna", "vicuna"},
                          {"zephyr", "zephyr"},   {"llama2", "llama-2"},     {"llama3", "llama-3"},
                          {"mistral", "mistral"}, {"mistral_v1", "mistral"}, {"gemma", "gemma"},
                          {"phi", "phi-3"},       {"phi_3", "phi-3"},        {"phi_35", "phi-3"}};

std::string schedule_of(const Found& found) {
  return text(beside(found, "lr_scheduler_type"), text(beside(found, "lr_scheduler")));
}

// One entry of lr_scheduler_kwargs; what it was refused for, or nothing.
std::string read_schedule_argument(const Found& found, const Node::Entry& entry, Draft& draft) {
  const Node value = plain(entry.value);
  if (entry.key == "min_lr_rate") {
    draft.set(found, "optim.min_lr_ratio", value);
  } else if (entry.key == "min_lr") {
    const Node* rate = beside(found, "learning_rate");
    if (!rate || number(*rate) <= 0) return "min_lr needs learning_rate";
    draft.set(found, "optim.min_lr_ratio", number_node(number(value) / number(*rate)));
  } else if (entry.key == "num_cycles" && schedule_of(found) == "cosine_with_restarts") {
    draft.set(found, "optim.num_cycles", value);
  } else if (entry.key == "num_cycles" && number(value) == 0.5) {
    draft.without_effect(found, "num_cycles 0.5 is a cosine that falls once, as here");
  } else if (entry.key == "num_cycles") {
    return "num_cycles: of optim.schedule cosine falls once, which is 0.5 there, and "
           "cosine_with_restarts so often as optim.num_cycles says";
  } else if (entry.key == "power") {
    draft.set(found, "optim.power", value);
  } else if (entry.key == "factor") {
    draft.set(found, "optim.plateau_factor", value);
  } else if (entry.key == "patience") {
    draft.set(found, "optim.plateau_patience", value);
  } else {
    return entry.key +
           " has no key here; optim.min_lr_ratio, num_cycles, power, decay_ratio, "
           "plateau_factor and plateau_patience shape a schedule";
  }
  return "";
}

}  // namespace

ToolKey optimizer(std::string name) {
  return read_by(std::move(name), "optim.name", "",
                 [](const Found& found, const ToolKey& key, Draft& draft) {
                   const std::string theirs = text(&found.value);
                   const std::string ours = optim::optimizer_name_here(theirs);
                   draft.set(found, key.here, Node::string(ours.empty() ? theirs : ours));
                 });
}

ToolKey schedule(std::string name) {
  return renamed(std::move(name), "optim.schedule", kSchedules);
}

ToolKey schedule_arguments(std::string name) {
  return read_by(std::move(name), "optim.min_lr_ratio",
                 "min_lr_rate there; num_cycles, power and factor are keys of optim too",
                 [](const Found& found, const ToolKey&, Draft& draft) {
                   if (is_off(found.value)) return draft.without_effect(found, "it is empty");
                   if (!found.value.is_map())
                     return draft.refuse(found, "it must be a map to be read here");
                   for (const Node::Entry& entry : found.value.entries)
                     if (const auto why = read_schedule_argument(found, entry, draft); !why.empty())
                       draft.refuse(found, why);
                 });
}

ToolKey warmup(std::string name, std::string here, std::string schedule) {
  return read_by(
      std::move(name), std::move(here), "",
      [schedule = std::move(schedule)](const Found& found, const ToolKey& key, Draft& draft) {
        if (is_off(found.value)) return draft.without_effect(found, "it is off");
        if (text(beside(found, schedule)) == "constant")
          return draft.without_effect(found, "the schedule constant has no warm-up there");
        const bool is_share = number(found.value) < 1;
        draft.set(found, is_share ? "optim.warmup_ratio" : key.here, plain(found.value));
      });
}

ToolKey beta(std::string name, std::string first, std::string second) {
  return read_by(std::move(name), "optim.betas", "write [beta1, beta2]",
                 [first = std::move(first), second = std::move(second)](
                     const Found& found, const ToolKey& key, Draft& draft) {
                   const Node one = Node::scalar(text(beside(found, first), "0.9"));
                   const Node two = Node::scalar(text(beside(found, second), "0.999"));
                   draft.set(found, key.here, Node::list({one, two}));
                 });
}

ToolKey steps(std::string name, std::string here) {
  return read_by(std::move(name), std::move(here), "in steps",
                 [](const Found& found, const ToolKey& key, Draft& draft) {
                   if (is_off(found.value)) return draft.without_effect(found, "it is off");
                   if (number(found.value) > 0 && number(found.value) < 1)
                     return draft.refuse(
                         found, "it is a share of all steps there; " + key.here + " counts steps");
                   draft.set(found, key.here, plain(found.value));
                 });
}

ToolKey resume(std::string name) {
  return read_by(std::move(name), "train.resume", "write auto, never or a checkpoint directory",
                 [](const Found& found, const ToolKey& key, Draft& draft) {
                   if (is_off(found.value))
                     return draft.without_effect(
                         found,
                         "an interrupted run of the same recipe is continued by itself; "
                         "train.resume: never begins anew");
                   const bool newest = is_true(&found.value);
                   draft.set(found, key.here, newest ? Node::string("auto") : plain(found.value));
                 });
}

ToolKey dtype(std::string name, std::string here) {
  return renamed(std::move(name), std::move(here), kDtypes);
}

ToolKey bf16(std::vector<std::string> types) {
  return read_by("bf16", "train.compute_dtype",
                 "auto takes bfloat16 where the machine multiplies it",
                 [types = std::move(types)](const Found& found, const ToolKey& key, Draft& draft) {
                   const bool is_short = std::ranges::any_of(types, [&](const std::string& type) {
                     const Node* named = in_file(found.root, type);
                     return named && !is_off(*named) && named->text.find("32") == std::string::npos;
                   });
                   if (is_off(found.value) && !is_short)
                     return draft.set(found, key.here, Node::string("float32"));
                   draft.without_effect(found, key.here + ": " + key.note);
                 });
}

ToolKey share(std::string name, std::string here) {
  return read_by(std::move(name), std::move(here), "a share, not a count",
                 [](const Found& found, const ToolKey& key, Draft& draft) {
                   if (is_off(found.value)) return draft.without_effect(found, "it is off");
                   if (number(found.value) >= 1)
                     return draft.refuse(
                         found, "it counts rows there; " + key.here + " is a share, such as 0.05");
                   draft.set(found, key.here, plain(found.value));
                 });
}

ToolKey chat_template(std::string name) {
  return read_by(std::move(name), "data.chat_template", "",
                 [](const Found& found, const ToolKey& key, Draft& draft) {
                   const std::string& name = found.value.text;
                   for (const auto& [theirs, ours] : kTemplates)
                     if (name == theirs) return draft.set(found, key.here, Node::string(ours));
                   if (name == "jinja" && beside(found, "chat_template_jinja"))
                     return draft.without_effect(found, "chat_template_jinja is the template");
                   if (name.starts_with("tokenizer_default"))
                     return draft.without_effect(found, "the model's own template is taken");
                   draft.refuse(found, fmt::format("{} is no built-in template, so the model's own "
                                                   "is taken, which may word rows otherwise; "
                                                   "data.chat_template names a file or a text",
                                                   name));
                 });
}

ToolKey max_steps(std::string name) {
  return read_by(std::move(name), "train.max_steps", "",
                 [](const Found& found, const ToolKey& key, Draft& draft) {
                   if (number(found.value) <= 0)
                     return draft.without_effect(found, "the epochs decide");
                   draft.set(found, key.here, plain(found.value));
                 });
}

ToolKey dropout(std::string name, std::function<bool(const Node& root)> is_off_there,
                std::string reason) {
  return read_by(std::move(name), "lora.dropout", "",
                 [is_off_there = std::move(is_off_there), reason = std::move(reason)](
                     const Found& found, const ToolKey& key, Draft& draft) {
                   if (is_off_there(found.root)) return draft.without_effect(found, reason);
                   draft.set(found, key.here, plain(found.value));
                 });
}

ToolKey memory_limits(std::string name) {
  return read_by(std::move(name), "model.max_memory", "with model.device_map: auto",
                 [](const Found& found, const ToolKey& key, Draft& draft) {
                   if (is_off(found.value)) return draft.without_effect(found, "it is empty");
                   if (text(beside(found, "device_map"), "auto") != "auto")
                     return draft.without_effect(found, "it acts beside device_map: auto alone");
                   Node limits = plain(found.value);
                   for (Node::Entry& entry : limits.entries)
                     if (entry.key.find_first_not_of("0123456789") == std::string::npos)
                       entry.key = "cuda:" + entry.key;
                   draft.set(found, key.here, std::move(limits));
                   if (draft.has(key.here))
                     draft.set(found, "model.device_map", Node::string("auto"));
                 });
}

ToolKey system_message(std::string name) {
  return read_by(std::move(name), "data.train[].system", "",
                 [](const Found& found, const ToolKey&, Draft& draft) {
                   if (!found.value.is_scalar())
                     return draft.refuse(found, "a system message is a text");
                   if (found.value.text.empty()) return draft.without_effect(found, "it is empty");
                   draft.set_in_datasets(found, "system", Node::string(found.value.text));
                 });
}

}  // namespace qlora::recipes
