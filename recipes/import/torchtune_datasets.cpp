// torchtune's `dataset`: a component that knows its rows, and a source.
#include <fmt/format.h>

#include <algorithm>

#include "data/readers/reader.h"
#include "recipes/import/conversions.h"
#include "recipes/import/datasets.h"

namespace qlora::recipes {
namespace {

std::string text_in(const Node& entry, const std::string& key, const std::string& otherwise = "") {
  return text(in_file(entry, key), otherwise);
}

// What a component takes where the file says nothing.
struct Component {
  const char* name;
  const char* format;
  const char* source;
  bool trains_on_input;
};

constexpr Component kComponents[] = {
    {"alpaca_dataset", "alpaca", "tatsu-lab/alpaca", true},
    {"alpaca_cleaned_dataset", "alpaca", "yahma/alpaca-cleaned", true},
    {"instruct_dataset", "completion", "", false},
    {"chat_dataset", "sharegpt", "", false},
    {"text_completion_dataset", "text", "", false},
    {"preference_dataset", "preference", "", false},
    {"slimorca_dataset", "sharegpt", "Open-Orca/SlimOrca-Dedup", false},
};

// "alpaca_dataset" of "torchtune.datasets.alpaca_dataset".
std::string component_name(const Node* component) {
  const std::string full = text(component);
  return full.substr(full.rfind('.') + 1);
}

// nullptr if its rows are not read.
const Component* find_component(const std::string& name) {
  for (const Component& component : kComponents)
    if (name == component.name) return &component;
  return nullptr;
}

std::string not_read(const std::string& component) {
  return fmt::format("rows of {} are not read; docs/formats.md has the formats",
                     component.empty() ? "an entry without a _component_" : component);
}

void name_fields(const Node& entry, const std::string& component, DraftedDataset& dataset) {
  const Node* map = in_file(entry, "column_map");
  const auto column = [&](const std::string& name) {
    return map ? text_in(*map, name, name) : name;
  };
  if (component == "instruct_dataset") {
    dataset.format = "alpaca";  // rows of one question and one answer
    dataset.field("instruction", column("input"));
    for (const char* unread : {"input", "system", "history"}) dataset.field(unread, kNoColumn);
    dataset.field("output", column("output"));
  } else if (dataset.format == "alpaca") {
    for (const char* field : {"instruction", "input", "output"})
      dataset.field(field, column(field));
    for (const char* unread : {"system", "history"}) dataset.field(unread, kNoColumn);
  } else if (dataset.format == "preference") {
    dataset.field("chosen", column("chosen"));
    dataset.field("rejected", column("rejected"));
  } else if (dataset.format == "text") {
    dataset.field("text", text_in(entry, "column", "text"));
  } else if (text_in(entry, "conversation_style") == "openai") {
    dataset.format = "chat";
    dataset.field("messages", text_in(entry, "conversation_column", "messages"));
  } else {
    dataset.field("conversations", text_in(entry, "conversation_column", "conversations"));
  }
}

// Whether the file's tokenizer adds no turns to messages. Llama 2's and Mistral's have a template
// of their own unless the file takes it away; Gemma's has none; others write turns in any case.
bool writes_no_turns(const Node& root) {
  const std::string name = component_name(in_file(root, "tokenizer._component_"));
  const Node* tokenizer = in_file(root, "tokenizer");
  const Node::Entry* words =
      tokenizer && tokenizer->is_map() ? tokenizer->find("prompt_template") : nullptr;
  const bool takes_it_away = words && words->value.kind == Node::Kind::kNull;
  if (name.find("gemma") != std::string::npos) return !words || takes_it_away;
  const bool has_words =
      name.find("llama2") != std::string::npos || name.find("mistral") != std::string::npos;
  return name.empty() || (has_words && takes_it_away);
}

// Alpaca's words stand alone here (data.prompt_style), or the chat template stands in their place.
void set_prompt_style(const Found& found, const std::string& format, Draft& draft) {
  const std::string tokenizer = component_name(in_file(found.root, "tokenizer._component_"));
  const bool alone = writes_no_turns(found.root);
  if (format == "alpaca" && alone)
    draft.set(found, "data.prompt_style", Node::string("alpaca"));
  else if (format == "alpaca")
    draft.warn(fmt::format(
        "torchtune's {} writes its turns around Alpaca's words; here the model's chat template "
        "writes turns around instruction and input, without those words. Rows of format chat whose "
        "user messages are in Alpaca's words are the same",
        tokenizer));
  else if (alone && !tokenizer.empty())
    draft.warn(fmt::format(
        "torchtune's {} writes no turns around messages; here the model's chat template does",
        tokenizer));
}

// What a component does to all rows.
void set_data_keys(const Found& found, const Node& entry, const Component& component,
                   Draft& draft) {
  const Node* packed = in_file(entry, "packed");
  if (packed) draft.set(found, "data.packing", plain(*packed));
  const std::string format = component.format;
  if (format == "preference" || format == "text") return;
  const Node* input = in_file(entry, "train_on_input");
  const bool all = input ? is_true(input) : component.trains_on_input;
  draft.set(found, "data.train_on", Node::string(all ? "all" : "assistant"));
  set_prompt_style(found, format, draft);
}

// torchtune puts it in the place of the rows' own, too.
void add_system(const std::string& system, DraftedDataset& dataset, Draft& draft) {
  const data::Format& format = data::find_format(dataset.format);
  if (!data::has_conversations(format)) return;
  dataset.more.push_back(Node::entry("system", Node::string(system)));
  draft.warn(
      "new_system_prompt takes the place of system messages that the rows bring; here such "
      "rows keep their own");
}

void read_entry(const Found& found, const ToolKey& key, const Node& entry, Draft& draft) {
  const std::string name = component_name(in_file(entry, "_component_"));
  const bool trains = key.here == "data.train";
  DraftedDataset dataset{text_in(entry, "source")};
  if (const Component* component = find_component(name)) {
    dataset.format = component->format;
    if (dataset.path.empty() && !in_file(entry, "data_files")) dataset.path = component->source;
    name_fields(entry, name, dataset);
    if (trains) set_data_keys(found, entry, *component, draft);
  } else {
    dataset.missing = not_read(name);
    if (component_name(in_file(found.root, "loss._component_")) == "DPOLoss")
      dataset.format = "preference";
  }
  if (const std::string system = text_in(entry, "new_system_prompt"); !system.empty())
    add_system(system, dataset, draft);
  if (const Node* weight = in_file(entry, "weight"); weight && trains)
    dataset.more.push_back(Node::entry("weight", plain(*weight)));
  take_entry_keys(found, "dataset", entry, find_tool("torchtune"), draft);
  add_rows(key.here, dataset, entry, draft);
}

// What an entry of `datasets` is of; its transform, which vision recipes have, says it too.
std::string kind_of(const Node& entry) {
  if (!entry.is_map()) return "";
  const std::string component = text_in(entry, "_component_");
  return component.empty() ? text_in(entry, "transform._component_") : component;
}

}  // namespace

void read_torchtune_dataset(const Found& found, const ToolKey& key, Draft& draft) {
  const std::vector<Node> entries =
      found.value.is_list() ? found.value.items : std::vector<Node>{found.value};
  for (const Node& entry : entries) {
    if (!entry.is_map()) return draft.refuse(found, "it must be a map with a _component_");
    read_entry(found, key, entry, draft);
  }
  const auto has = [&](const char* component) {
    return std::ranges::any_of(entries, [&](const Node& entry) {
      return component_name(in_file(entry, "_component_")).starts_with(component);
    });
  };
  if (draft.has("data.prompt_style") && has("alpaca") && has("instruct"))
    draft.warn(
        "data.prompt_style: alpaca also words the rows of instruct_dataset, which torchtune takes "
        "as they are");
  draft.take(found, key.here);
}

void read_torchtune_datasets(const Found& found, const ToolKey& key, Draft& draft) {
  if (!found.value.is_list()) return draft.refuse(found, "it must be a list of maps");
  for (const Node& entry : found.value.items)
    if (!entry.is_map() || !find_component(component_name(in_file(entry, "_component_"))))
      return draft.refuse(found, not_read(kind_of(entry)));
  read_torchtune_dataset(found, key, draft);
}

}  // namespace qlora::recipes
