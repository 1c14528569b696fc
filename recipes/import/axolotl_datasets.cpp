// Axolotl's `datasets`: a path and the type of its rows, which says the names of their fields.
#include <fmt/format.h>

#include <algorithm>

#include "recipes/import/conversions.h"
#include "recipes/import/datasets.h"
#include "recipes/import/key_groups.h"

namespace qlora::recipes {
namespace {

std::string text_in(const Node& entry, const std::string& key, const std::string& otherwise = "") {
  return text(in_file(entry, key), otherwise);
}

// A type that is a map names the fields of an instruction. An empty name is that of no column.
void read_own_type(const Node& type, DraftedDataset& dataset) {
  const auto column_or_none = [&](const char* key, const char* otherwise) {
    const std::string column = text_in(type, key, otherwise);
    return column.empty() ? kNoColumn : column;
  };
  dataset.format = "alpaca";
  dataset.field("instruction", text_in(type, "field_instruction", "instruction"));
  dataset.field("input", column_or_none("field_input", "input"));
  dataset.field("output", text_in(type, "field_output", "output"));
  dataset.field("system", column_or_none("field_system", "system"));
  for (const char* words : {"format", "no_input_format", "system_format", "system_prompt"})
    if (const Node* given = in_file(type, words); given && !is_off(*given))
      dataset.missing = fmt::format(
          "{} of its type words the prompt: write rows of format completion, or leave the chat "
          "template to word it",
          words);
}

void read_messages(const Node& entry, DraftedDataset& dataset) {
  const Node* names = in_file(entry, "message_property_mappings");
  const std::string role =
      names ? text_in(*names, "role", "role") : text_in(entry, "message_field_role", "role");
  const std::string content = names ? text_in(*names, "content", "content")
                                    : text_in(entry, "message_field_content", "content");
  const std::string messages = text_in(entry, "field_messages", "messages");
  if (role == "from" || content == "value") {
    dataset.format = "sharegpt";
    dataset.field("conversations", messages);
    dataset.field("from", role);
    dataset.field("value", content);
  } else {
    dataset.format = "chat";
    dataset.field("messages", messages);
    dataset.field("role", role);
    dataset.field("content", content);
  }
  dataset.field("tools", text_in(entry, "field_tools", "tools"));
}

void read_type(const Node& entry, DraftedDataset& dataset) {
  const std::string type = text_in(entry, "type"), base = type.substr(0, type.find_first_of(":."));
  if (base.empty()) {
    dataset.format = "pretokenized";
  } else if (base == "alpaca") {
    dataset.format = "alpaca";
    for (const char* unread : {"system", "history"}) dataset.field(unread, kNoColumn);
  } else if (base == "sharegpt") {
    dataset.format = "sharegpt";
    dataset.field("conversations", text_in(entry, "field_messages", "conversations"));
  } else if (base == "chat_template") {
    read_messages(entry, dataset);
  } else if (base == "completion" || base == "pretrain") {
    dataset.format = "text";
    dataset.field("text", text_in(entry, base == "pretrain" ? "text_column" : "field", "text"));
  } else {
    dataset.missing =
        fmt::format("rows of type {} are not read; docs/formats.md has the formats", type);
  }
}

DraftedDataset read_entry(const Node& entry, const Node& root) {
  DraftedDataset dataset{text_in(entry, "path")};
  const Node* type = in_file(entry, "type");
  if (compares_in_axolotl(root))
    read_axolotl_pairs(entry, root, dataset);
  else if (type && type->is_map())
    read_own_type(*type, dataset);
  else
    read_type(entry, dataset);
  return dataset;
}

// A type with fields of its own has words of its own, if only spaces, and no chat template.
void tell_of_words(const Node& entry, const DraftedDataset& dataset, Draft& draft) {
  const Node* type = in_file(entry, "type");
  if (type && type->is_map() && dataset.format == "alpaca" && dataset.missing.empty())
    draft.warn(
        "a type with fields of its own and no format words a prompt as '{instruction} {input} ' "
        "there, without a chat template; here the chat template words it. Rows of format "
        "completion are taken as they stand");
}

}  // namespace

void read_axolotl_datasets(const Found& found, const ToolKey& key, Draft& draft) {
  if (const std::string words = template_of_axolotl_pairs(found.root); !words.empty())
    draft.set(found, "data.chat_template", Node::string(words));
  for (const Node& entry : found.value.items) {
    if (!entry.is_map()) return draft.refuse(found, "its entries must be maps");
    DraftedDataset dataset = read_entry(entry, found.root);
    take_entry_keys(found, "datasets", entry, find_tool("axolotl"), draft);
    if (text_in(entry, "type") == "alpaca")  // which words its prompts as Alpaca does
      draft.set(found, "data.prompt_style", Node::string("alpaca"));
    tell_of_words(entry, dataset, draft);
    tell_of_axolotl_pairs(entry, dataset, draft);
    add_rows(key.here, dataset, entry, draft);
  }
  const auto has_type = [&](auto matches) {
    return std::ranges::any_of(found.value.items, [&](const Node& entry) {
      const Node* type = entry.is_map() ? in_file(entry, "type") : nullptr;
      return type && matches(*type);
    });
  };
  if (has_type([](const Node& type) { return text(&type) == "alpaca"; }) &&
      has_type([](const Node& type) { return type.is_map(); }))
    draft.warn(
        "data.prompt_style: alpaca also words the rows of a type with fields of its own, which "
        "Axolotl words otherwise");
  draft.take(found, key.here);
}

// Whose rows are read or not, as their reader says it.
void read_axolotl_type(const Found& found, const ToolKey& key, Draft& draft) {
  const std::string why = read_entry(found.siblings, found.root).missing;
  if (why.empty()) return draft.take(found, key.here);
  draft.refuse(found, why);
}

void read_axolotl_pretraining(const Found& found, const ToolKey& key, Draft& draft) {
  const std::vector<Node> entries =
      found.value.is_list() ? found.value.items : std::vector<Node>{found.value};
  for (const Node& entry : entries) {
    DraftedDataset dataset{entry.is_map() ? text_in(entry, "path") : entry.text};
    dataset.format = "text";
    if (entry.is_map()) {
      dataset.field("text", text_in(entry, "text_column", "text"));
      take_entry_keys(found, "datasets", entry, find_tool("axolotl"), draft);
    }
    add_rows(key.here, dataset, entry, draft);
  }
  draft.take(found, key.here);
}

}  // namespace qlora::recipes
