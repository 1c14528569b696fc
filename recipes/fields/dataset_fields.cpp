// The keys of one entry of data.train and data.eval, and lists of such entries.
#include <fmt/format.h>

#include "base/error.h"
#include "data/readers/reader.h"
#include "recipes/fields/field_values.h"
#include "recipes/fields/fields.h"

namespace qlora::recipes {
namespace {

using Dataset = data::DatasetOptions;

template <typename T>
Field<Dataset> dataset_field(const char* key, const char* type, const char* meaning,
                             T Dataset::*member) {
  Field<Dataset> field{key, type, meaning};
  field.read = [member](const Node& node, const std::string& full_key, ProblemList& problems,
                        Dataset& dataset) { decode(node, full_key, problems, dataset.*member); };
  field.write = [member](const Dataset& dataset) { return encode(dataset.*member); };
  return field;
}

void decode_format(const Node& node, const std::string& key, ProblemList& problems,
                   Dataset& dataset) {
  std::string format = dataset.format;
  decode(node, key, problems, format);
  try {
    dataset.format = data::find_format(format, key).name;
  } catch (const ConfigError& error) {
    problems.covered(key);
    problems.add(node.place, error.what());
  }
}

std::vector<Field<Dataset>> make_dataset_fields() {
  std::vector<Field<Dataset>> fields = {
      dataset_field("path", "path",
                    "Where the rows are: a .jsonl, .json, .csv, .tsv or .txt file, which may be "
                    "compressed (.gz, .zst), or a .parquet or .arrow file; a folder of such files, "
                    "or a pattern such as `\"train-*.parquet\"`, whose files are read in the order "
                    "of their names; a folder that `save_to_disk` of `datasets` wrote.",
                    &Dataset::path),
      dataset_field("format",
                    "alpaca | chat | sharegpt | completion | text | pretokenized | input_output | "
                    "preference",
                    "How a row is laid out: which fields it has, and which of them are trained. "
                    "docs/formats.md shows a row of each.",
                    &Dataset::format),
      dataset_field("fields", "map",
                    "Renames fields: each key is a name from docs/formats.md, its value the name "
                    "that the file has for it: `{instruction: question, output: answer}`.",
                    &Dataset::fields),
      dataset_field("separator", "text",
                    "completion and input_output rows, and preference rows of texts: a text that "
                    "is put between prompt and completion and counts as part of the prompt, such "
                    "as `\"\\n\"`. Empty: the two are joined as they are in the row.",
                    &Dataset::separator),
      dataset_field("system", "text",
                    "chat, sharegpt, alpaca and preference rows: the system message for rows that "
                    "have none of their own. Empty: such rows get none. It is not saved with the "
                    "trained model: give it again with `qlora chat --system`.",
                    &Dataset::system),
      dataset_field("weight", "number",
                    "In `data.train`: how large a part of an epoch comes from this dataset, "
                    "relative to the weights of the others; `data.mix_by` says whether that part "
                    "is one of rows or of tokens. An epoch stays as long as it would be without "
                    "weights, so that rows of one dataset may come several times in it and rows of "
                    "another only in some epochs. 0: without weights every row comes once an "
                    "epoch; if one dataset has a weight, all need one.",
                    &Dataset::weight),
      dataset_field("max_rows", "integer", "How many rows are read, from the first one on. 0: all.",
                    &Dataset::max_rows),
      dataset_field("min_tokens", "integer",
                    "Leaves out rows of fewer tokens, and preference rows in which either answer "
                    "together with the prompt has fewer. 0: no row is left out.",
                    &Dataset::min_tokens),
      dataset_field("max_tokens", "integer",
                    "Leaves out rows of more tokens, and preference rows in which either answer "
                    "together with the prompt has more, before `data.on_overlength` is applied. 0: "
                    "no row is left out.",
                    &Dataset::max_tokens)};
  fields[0].required = true;
  fields[1].read = decode_format;
  return fields;
}

}  // namespace

const std::vector<Field<Dataset>>& dataset_fields() {
  static const std::vector<Field<Dataset>> fields = make_dataset_fields();
  return fields;
}

void decode(const Node& node, const std::string& key, ProblemList& problems,
            std::vector<Dataset>& value) {
  const auto refuse = [&](const Node& found, const std::string& item_key) {
    problems.covered(key);
    const std::string path =
        found.is_scalar() && !found.text.empty() ? to_yaml(found) : "rows.jsonl";
    const bool whole = item_key == key;
    const std::string example = fmt::format("{{path: {}, format: chat}}", path);
    problems.add(found.place, fmt::format("{} must be {}, got {}; write {}", item_key,
                                          whole ? "a list of datasets" : "a map", found.describe(),
                                          whole ? "[" + example + "]" : example));
  };
  if (!node.is_list()) return refuse(node, key);
  std::vector<Dataset> datasets;
  for (size_t i = 0; i < node.items.size(); ++i) {
    const std::string item_key = fmt::format("{}[{}]", key, i);
    const Node& item = node.items[i];
    problems.found(item_key, item.place);
    datasets.emplace_back();
    if (item.is_map())
      read_fields(item, item_key, dataset_fields(), problems, datasets.back());
    else
      refuse(item, item_key);
  }
  value = std::move(datasets);
}

Node encode(const std::vector<Dataset>& value) {
  std::vector<Node> items;
  for (const Dataset& dataset : value) {
    std::vector<Node::Entry> entries;
    for (const Field<Dataset>& field : dataset_fields())
      entries.push_back(Node::entry(field.key, field.write(dataset)));
    items.push_back(Node::map(std::move(entries)));
  }
  return Node::list(std::move(items));
}

}  // namespace qlora::recipes
