// TRL's data sets. It tells by the columns of a row what its rows are: a conversation, prompt and
// completion, or a text in the column that dataset_text_field names.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "data/row_source.h"
#include "recipes/import/conversions.h"
#include "recipes/import/datasets.h"
#include "recipes/import/key_groups.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using data::Json;

// Null if there are no rows at hand.
Json first_row(const std::string& path, const std::string& directory) {
  if (path.empty()) return {};
  std::error_code none;
  const fs::path beside = fs::path(directory) / path;
  try {
    data::DatasetOptions dataset;
    dataset.path = fs::exists(beside, none) ? beside.string() : path;
    data::RowSource rows(dataset);
    const auto first = rows.next(1);
    return first.empty() || !first[0].value.is_object() ? Json() : first[0].value;
  } catch (const Error&) {
    return {};  // training tells of it
  }
}

// Whether a column holds messages that have such a key.
bool has_messages(const Json& row, const std::string& column, const char* key) {
  const auto found = row.find(column);
  return found != row.end() && found->is_array() && !found->empty() && (*found)[0].is_object() &&
         (*found)[0].contains(key);
}

std::string text_field(const Node& root) {
  return text(in_file(root, "dataset_text_field"), "text");
}

// In the order in which TRL asks.
void read_columns(const Json& row, const Node& root, DraftedDataset& dataset) {
  if (row.contains("prompt") && row.contains("completion")) {
    dataset.format = "completion";
    if (!row["prompt"].is_string())
      dataset.missing = fmt::format(
          "rows of {} have messages as prompt and completion, which are not read; put them into "
          "one list, messages, for format chat",
          dataset.path);
  } else if (row.contains("chosen") && row.contains("rejected")) {
    dataset.format = "preference";
  } else if (has_messages(row, "messages", "role")) {
    dataset.format = "chat";
  } else if (has_messages(row, "messages", "from") || has_messages(row, "conversations", "from")) {
    dataset.format = "sharegpt";
    dataset.field("conversations", row.contains("messages") ? "messages" : "conversations");
  } else if (has_messages(row, "conversations", "role")) {
    dataset.field("messages", "conversations");
  } else if (row.contains(text_field(root))) {
    dataset.format = "text";
    dataset.field("text", text_field(root));
  }
}

// `files` is where its first row is looked for.
DraftedDataset read_rows(const std::string& path, const std::string& files, const Node& root,
                         const Draft& draft) {
  DraftedDataset dataset{path};
  if (compares_in_trl(root)) {
    dataset.format = "preference";
  } else if (const Json row = first_row(files, draft.directory()); !row.is_null()) {
    read_columns(row, root, dataset);
  } else if (in_file(root, "dataset_text_field")) {
    dataset.format = "text";
    dataset.field("text", text_field(root));
  }
  return dataset;
}

DraftedDataset read_entry(const Node& entry, const Node& root, const Draft& draft) {
  const std::string path = text(in_file(entry, "path"));
  return read_rows(path, first_file(path, entry, draft), root, draft);
}

bool has_texts(const Node& root, const Draft& draft) {
  const Node* name = in_file(root, "dataset_name");
  if (name && read_rows(text(name), text(name), root, draft).format == "text") return true;
  const Node* entries = in_file(root, "datasets");
  return entries && std::ranges::any_of(entries->items, [&](const Node& entry) {
           return read_entry(entry, root, draft).format == "text";
         });
}

// Where TRL splits a share off its rows, that is what it evaluates on.
bool evaluates_on_split(const Node& root) {
  const Node* strategy = in_file(root, "eval_strategy");
  if (!strategy) strategy = in_file(root, "evaluation_strategy");
  const Node* share = in_file(root, "test_split_size");
  return strategy && !is_off(*strategy) && (!share || is_off(*share));
}

void ask_for_split(const DraftedDataset& train, const Node& root, Draft& draft) {
  if (!evaluates_on_split(root) || draft.has_datasets("data.eval")) return;
  draft.add_dataset("data.eval", train.node(),
                    fmt::format("the split {} of {}, which TRL evaluates on; name its file",
                                text(in_file(root, "dataset_test_split"), "test"), train.path));
}

}  // namespace

void read_trl_dataset_name(const Found& found, const ToolKey& key, Draft& draft) {
  const std::string path = text(&found.value);
  DraftedDataset dataset = read_rows(path, path, found.root, draft);
  look_for_rows(dataset, draft);
  draft.take(found, key.here);
  draft.add_dataset(key.here, dataset.node(), dataset.missing);
  ask_for_split(dataset, found.root, draft);
}

void read_trl_datasets(const Found& found, const ToolKey& key, Draft& draft) {
  for (const Node& entry : found.value.items) {
    const DraftedDataset dataset = read_entry(entry, found.root, draft);
    take_entry_keys(found, "datasets", entry, find_tool("trl"), draft);
    add_rows(key.here, dataset, entry, draft);
    ask_for_split(dataset, found.root, draft);
  }
  draft.take(found, key.here);
}

void read_trl_text_field(const Found& found, const ToolKey& key, Draft& draft) {
  if (has_texts(found.root, draft)) return draft.take(found, key.here);  // read with the rows
  draft.without_effect(found,
                       "it names the column of texts, and the rows have messages, or prompts "
                       "and answers");
}

void read_trl_test_split(const Found& found, const ToolKey&, Draft& draft) {
  if (evaluates_on_split(found.root)) return draft.take(found, "data.eval");
  draft.without_effect(found, "eval_strategy is off, or test_split_size says what is held out");
}

}  // namespace qlora::recipes
