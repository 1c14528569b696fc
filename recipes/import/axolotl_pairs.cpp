// Axolotl's types of rows that compare two answers. Those that are named after ChatML and Llama 3
// write the turns of these templates around the texts of a row, whatever chat_template says.
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

// What stands behind the template in the name of a type, and the columns that it reads.
struct Columns {
  const char *name, *prompt, *chosen, *rejected;
  bool conversations = false;  // the answers, each with the prompt in front of it
  bool system = true;
};

constexpr Columns kColumns[] = {
    {"default", "prompt", "chosen", "rejected"},
    {"argilla", "instruction", "chosen_response", "rejected_response"},
    {"argilla_chat", "prompt", "chosen", "rejected", true, false},
    {"icr", "input", "chosen", "rejected"},
    {"intel", "question", "chosen", "rejected"},
    {"prompt_pairs", "prompt", "chosen", "rejected"},
    {"ultra", "prompt", "chosen", "rejected", true},
};

std::string first_part(const std::string& type) { return type.substr(0, type.find('.')); }

// Its name here; empty: rows of the type bring no template with them.
std::string template_of(const std::string& type) {
  const std::string name = first_part(type);
  return name == "chatml" ? "chatml" : name == "llama3" ? "llama-3" : "";
}

// nullptr if the type is not known.
const Columns* columns_of(const std::string& type) {
  const size_t dot = type.find('.');
  const std::string name = dot == std::string::npos ? "default" : type.substr(dot + 1);
  const auto found =
      std::ranges::find_if(kColumns, [&](const Columns& one) { return name == one.name; });
  return found == std::end(kColumns) ? nullptr : found;
}

std::string not_read(const std::string& type) {
  return fmt::format("rows of type {} are not read; docs/formats.md has the formats", type);
}

void read_worded(const std::string& type, const std::string& common, DraftedDataset& dataset) {
  const Columns* columns = columns_of(type);
  if (!columns) {
    dataset.missing = not_read(type);
    return;
  }
  dataset.field("prompt", columns->prompt);
  dataset.field("chosen", columns->chosen);
  dataset.field("rejected", columns->rejected);
  if (!columns->system) dataset.field("system", kNoColumn);
  if (template_of(type) != common)
    dataset.missing = fmt::format(
        "rows of type {} are worded by data.chat_template: {}, and a recipe has one such key, "
        "which "
        "is {} for the data set before",
        type, template_of(type), common);
  else if (!columns->conversations)
    dataset.missing = fmt::format(
        "Axolotl's type {0} writes turns around texts, and texts of pairs are taken as they stand "
        "here; write each answer as a message, {{\"role\": \"assistant\", \"content\": ...}}, and "
        "data.chat_template: {1} writes the same turns around prompt and answers",
        type, common);
}

}  // namespace

std::string template_of_axolotl_pairs(const Node& root) {
  if (!compares_in_axolotl(root)) return "";
  for (const char* list : {"datasets", "test_datasets"})
    if (const Node* entries = in_file(root, list))
      for (const Node& entry : entries->items)
        if (const std::string name = entry.is_map() ? template_of(text_in(entry, "type")) : "";
            !name.empty())
          return name;
  return "";
}

void read_axolotl_pairs(const Node& entry, const Node& root, DraftedDataset& dataset) {
  const Node* type_of_rows = in_file(entry, "type");
  const bool is_own = type_of_rows && type_of_rows->is_map();
  const std::string type = text(type_of_rows), base = first_part(type);
  dataset.format = "preference";
  if (!template_of(type).empty())
    return read_worded(type, template_of_axolotl_pairs(root), dataset);
  const Node& names = is_own ? *type_of_rows : entry;
  dataset.field("chosen", text_in(names, "field_chosen", "chosen"));
  dataset.field("rejected", text_in(names, "field_rejected", "rejected"));
  if (is_own) {
    dataset.field("prompt", text_in(names, "field_prompt", "prompt"));
    dataset.field("system", kNoColumn);  // only a prompt_format of the type takes it
  } else if (base == "chat_template" && type.find(".argilla") == std::string::npos) {
    dataset.field("prompt", text_in(entry, "field_messages", "messages"));
  } else if (base != "" && base != "chat_template" && base != "passthrough") {
    dataset.missing = not_read(type);
  }
}

void tell_of_axolotl_pairs(const Node& entry, const DraftedDataset& dataset, Draft& draft) {
  const std::string type = text_in(entry, "type");
  const Columns* columns = template_of(type).empty() ? nullptr : columns_of(type);
  if (columns && columns->conversations && dataset.missing.empty())
    draft.warn(fmt::format(
        "Axolotl's type {} takes the first two messages of chosen and rejected; here their prompt "
        "is what both begin with, and all that is behind it is compared. Rows of two messages are "
        "the same",
        type));
}

ToolKey axolotl_template(std::string name, const ToolKey& otherwise) {
  return read_by(
      std::move(name), otherwise.here, otherwise.note,
      [convert = otherwise.convert](const Found& found, const ToolKey& key, Draft& draft) {
        const std::string worded = template_of_axolotl_pairs(found.root);
        const std::string theirs = worded == "llama-3" ? "llama3" : worded;
        if (worded.empty() || text(&found.value) == theirs) return convert(found, key, draft);
        draft.without_effect(found,
                             fmt::format("the type of the pairs words them, as {} does", worded));
      });
}

}  // namespace qlora::recipes
