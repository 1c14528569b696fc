// Axolotl's keys of `datasets`, and what they say of the messages of a row.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "recipes/import/conversions.h"
#include "recipes/import/datasets.h"
#include "recipes/import/key_groups.h"

namespace qlora::recipes {
namespace {

constexpr const char* kHoldsItsRows = "the file must hold the rows as they are to be trained";

// It stands in Axolotl's chatml template, and in no other one.
void read_default_system(const Found& found, const ToolKey& key, Draft& draft) {
  if (text(beside(found, "chat_template")) != "chatml")
    return draft.without_effect(found, "it acts only beside chat_template: chatml");
  system_message("").convert(found, key, draft);
}

void read_trained_roles(const Found& found, const ToolKey&, Draft& draft) {
  const std::vector<std::string> roles = texts(found.value);
  if (roles.empty())
    return draft.refuse(found,
                        "answers are trained unless a mark says otherwise; give those that are not "
                        "to be trained the mark weight: 0");
  for (const std::string& role : roles)
    if (role != "assistant" && role != "gpt")
      return draft.refuse(found, "answers of the assistant are trained, or all (data.train_on)");
  draft.without_effect(found, "answers of the assistant are trained");
}

// Which ends of turns are trained: here those of the answers that are.
void read_trained_ends(const Found& found, const ToolKey& key, Draft& draft) {
  if (found.value.text == "turn") return draft.without_effect(found, key.note);
  draft.refuse(found, key.note + "; data.train_on: last trains the last answer of a row alone");
}

// A key of a message that a row of ours has too.
void read_known_key(const Found& found, const std::vector<std::string>& known, Draft& draft) {
  if (std::ranges::count(known, found.value.text) > 0)
    return draft.without_effect(found, "it is read under this name");
  draft.refuse(found, fmt::format("it is called {} in the rows", fmt::join(known, ", ")));
}

// The names of roles that rows of conversations have here as well.
bool is_known_role(const std::string& role, const std::string& name) {
  if (role == "user") return name == "user" || name == "human";
  if (role == "assistant") return name == "assistant" || name == "gpt" || name == "model";
  return name == role && (role == "system" || role == "tool");
}

// A map of roles, each with the names that it has in the rows.
void read_roles(const Found& found, const ToolKey& key, Draft& draft) {
  if (is_off(found.value)) return draft.without_effect(found, "it is off");
  const bool are_known =
      found.value.is_map() && std::ranges::all_of(found.value.entries, [](const auto& role) {
        return std::ranges::all_of(texts(role.value), [&](const std::string& name) {
          return is_known_role(role.key, name);
        });
      });
  if (are_known) return draft.without_effect(found, "roles are read under these names");
  draft.refuse(found, key.note);
}

// Without effect where it is `plain`, which holds without the key too.
ToolKey refused_unless(std::string name, std::string plain, std::string note) {
  ToolKey key =
      read_by(std::move(name), "", std::move(note),
              [plain = std::move(plain)](const Found& found, const ToolKey& key, Draft& draft) {
                if (is_off(found.value)) return draft.without_effect(found, "it is off");
                if (text(&found.value) == plain)
                  return draft.without_effect(found, plain + " is taken in any case");
                draft.refuse(found, key.note);
              });
  key.is_refused = true;
  return key;
}

std::vector<ToolKey> message_keys() {
  return {
      read_by("default_system_message", "data.train[].system", "", read_default_system),
      read_by("datasets[].roles_to_train", "data.train_on", "write assistant, all or last",
              read_trained_roles),
      read_by("datasets[].train_on_eos", "", "each trained answer is trained with its end",
              read_trained_ends),
      read_by("datasets[].train_on_eot", "", "each trained answer is trained with its end",
              read_trained_ends),
      read_by("datasets[].message_field_training", "",
              "a message that is not to be trained has weight: 0 or train: false",
              [](const Found& found, const ToolKey&, Draft& draft) {
                read_known_key(found, {"train", "training", "trainable", "weight", "loss"}, draft);
              }),
      read_by("datasets[].field_thinking", "", "messages have it as reasoning_content",
              [](const Found& found, const ToolKey&, Draft& draft) {
                read_known_key(found, {"reasoning_content", "reasoning", "thinking"}, draft);
              }),
      refused("datasets[].message_field_training_detail",
              "messages are trained whole, or not at all (weight: 0)"),
      refused("datasets[].drop_system_message", "rows keep their system messages")};
}

}  // namespace

std::vector<ToolKey> axolotl_dataset_keys() {
  std::vector<ToolKey> keys = {
      {"datasets[].path", "data.train[].path"},
      {"datasets[].data_files", "data.train[].path"},
      read_by("datasets[].type", "data.train[].format", "", read_axolotl_type)};
  for (const char* field : {"field_instruction", "field_input", "field_output", "field_system",
                            "field_prompt", "field_chosen", "field_rejected"})
    keys.push_back({std::string("datasets[].type.") + field, "data.train[].fields"});
  for (const char* words : {"format", "no_input_format", "system_format", "system_prompt",
                            "prompt_format", "chosen_format", "rejected_format"})
    keys.push_back(refused(std::string("datasets[].type.") + words,
                           "the chat template words prompts, or Alpaca's words "
                           "(data.prompt_style), or rows of format completion"));
  for (const char* field :
       {"field", "field_messages", "field_tools", "message_field_role", "message_field_content",
        "message_property_mappings", "field_chosen", "field_rejected", "text_column"})
    keys.push_back({std::string("datasets[].") + field, "data.train[].fields"});
  for (const char* field : {"ds_type", "field_human", "field_model", "trust_remote_code",
                            "input_format", "template_thinking_key", "split_thinking"})
    keys.push_back(idle(std::string("datasets[].") + field,
                        "the file's rows and the model's template say it"));
  keys.push_back(read_by("datasets[].split", "", "a split is a file here",
                         [](const Found& found, const ToolKey& key, Draft& draft) {
                           if (found.value.text == "train")
                             return draft.without_effect(found, key.note);
                           draft.refuse(found, key.note);
                         }));
  keys.push_back(chat_template("datasets[].chat_template"));
  keys.push_back(chat_template("datasets[].conversation"));
  keys.push_back(same("datasets[].chat_template_jinja", "data.chat_template"));
  add_missing(keys, message_keys());
  keys.push_back(refused_unless("datasets[].name", "default", kHoldsItsRows));
  keys.push_back(refused_unless("datasets[].revision", "main", kHoldsItsRows));
  keys.push_back(read_by("datasets[].roles", "",
                         "roles are called user or human, assistant or gpt, system and tool in the "
                         "rows; other names must be replaced there",
                         read_roles));
  for (const char* field : {"shards", "shards_idx", "preprocess_shards", "skip", "input_transform",
                            "temperature", "logprobs_field"})
    keys.push_back(refused(std::string("datasets[].") + field, kHoldsItsRows));
  for (const char* field : {"step_separator", "max_completion_length", "train_on_last_step_only"})
    keys.push_back(refused(std::string("datasets[].") + field,
                           "rows of steps with a label each (stepwise_supervised) are not read"));
  return keys;
}

}  // namespace qlora::recipes
