// LLaMA-Factory's `dataset`: names that dataset_info.json explains. It lies in dataset_dir, or else
// beside the file.
#include <fmt/format.h>

#include <filesystem>
#include <initializer_list>
#include <optional>

#include "base/error.h"
#include "io/read_file.h"
#include "recipes/import/conversions.h"
#include "recipes/import/datasets.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

struct DatasetInfo {
  std::string directory;  // as the recipe writes it
  Node names;
};

// Where LLaMA-Factory is started is not known: its dataset_dir is looked for there and beside the
// file.
std::optional<DatasetInfo> read_info(const Node& root, const std::string& directory) {
  const std::string folder = text(in_file(root, "dataset_dir"), "data");
  for (const fs::path& place :
       {fs::path(directory) / folder, fs::path(folder), fs::path(directory)}) {
    const fs::path file = place / "dataset_info.json";
    std::error_code none;
    if (!fs::exists(file, none)) continue;
    ProblemList problems(file.string());
    Node names = parse_yaml(io::read_bytes(file.string()), file.string(), problems);
    return DatasetInfo{place == fs::path(directory) ? "" : folder, std::move(names)};
  }
  return std::nullopt;
}

std::string text_in(const Node& map, const std::string& key, const std::string& otherwise) {
  return text(in_file(map, key), otherwise);
}

// Where columns are named, those that are not are not read.
std::string query_column(const Node& about) {
  return text_in(about, "columns.query", in_file(about, "columns") ? "" : "input");
}

// Of columns that are read only where they are named.
void name_further_columns(const Node& about, std::initializer_list<const char*> columns,
                          DraftedDataset& dataset) {
  for (const std::string column : columns) {
    const std::string named = text_in(about, "columns." + column, "");
    dataset.field(column, named.empty() ? kNoColumn : named);
  }
}

void read_alpaca(const Node& about, DraftedDataset& dataset) {
  const std::string query = query_column(about);
  dataset.format = "alpaca";
  dataset.field("instruction", text_in(about, "columns.prompt", "instruction"));
  dataset.field("input", query.empty() ? kNoColumn : query);
  dataset.field("output", text_in(about, "columns.response", "output"));
  name_further_columns(about, {"system", "history"}, dataset);
}

void read_conversations(const Node& about, DraftedDataset& dataset) {
  const std::string role = text_in(about, "tags.role_tag", "from");
  const std::string content = text_in(about, "tags.content_tag", "value");
  const std::string messages = text_in(about, "columns.messages", "conversations");
  if (role == "role") {
    dataset.format = "chat";
    dataset.field("messages", messages);
    dataset.field("content", content);
  } else {
    dataset.format = "sharegpt";
    dataset.field("conversations", messages);
    dataset.field("from", role);
    dataset.field("value", content);
  }
  name_further_columns(about, {"system", "tools"}, dataset);
}

void read_pairs(const Node& about, bool conversations, DraftedDataset& dataset) {
  dataset.format = "preference";
  dataset.field("chosen", text_in(about, "columns.chosen", "chosen"));
  dataset.field("rejected", text_in(about, "columns.rejected", "rejected"));
  if (conversations)
    dataset.field("conversations", text_in(about, "columns.messages", "conversations"));
  else
    dataset.field("prompt", text_in(about, "columns.prompt", "instruction"));
  name_further_columns(about, {"system", "tools"}, dataset);
}

// A name that is not explained: the stage says what its rows are for.
DraftedDataset read_unexplained(const std::string& name, const std::string& stage,
                                const std::string& why) {
  DraftedDataset dataset{name};
  if (stage == "pt") dataset.format = "text";
  if (stage == "dpo" || stage == "rm") dataset.format = "preference";
  dataset.missing = why;
  if (stage == "kto") dataset.missing += "; rows of stage kto, which have a kto_tag, are not read";
  return dataset;
}

DraftedDataset read_named(const std::string& name, const DatasetInfo& info,
                          const std::string& stage) {
  DraftedDataset dataset{name};
  const Node* about = in_file(info.names, name);
  if (!about)
    return read_unexplained(name, stage, fmt::format("dataset_info.json has no {}", name));
  for (const char* hub : {"hf_hub_url", "ms_hub_url", "om_hub_url", "script_url"})
    if (dataset.path == name) dataset.path = text_in(*about, hub, name);
  const std::string file = text_in(*about, "file_name", "");
  if (!file.empty() && !in_file(*about, "hf_hub_url"))
    dataset.path = (fs::path(info.directory) / file).string();
  const bool conversations = text_in(*about, "formatting", "alpaca") != "alpaca";
  if (is_true(in_file(*about, "ranking"))) {
    read_pairs(*about, conversations, dataset);
  } else if (stage == "pt") {
    dataset.format = "text";
    dataset.field("text", text_in(*about, "columns.prompt", "text"));
  } else if (conversations) {
    read_conversations(*about, dataset);
  } else {
    read_alpaca(*about, dataset);
  }
  for (const char* unread : {"columns.images", "columns.videos", "columns.audios",
                             "columns.kto_tag", "subset", "num_samples"})
    if (in_file(*about, unread))
      dataset.missing = fmt::format("{} has {}, which is not read", name, unread);
  return dataset;
}

// What its readers do otherwise than those of our formats.
void tell_of_rows(const std::string& name, const DraftedDataset& dataset, const Node* about,
                  Draft& draft) {
  const bool reads_query = !about || !query_column(*about).empty();
  const bool alpaca_pairs = about && dataset.format == "preference" &&
                            text_in(*about, "formatting", "alpaca") == "alpaca";
  if (dataset.format == "alpaca" && reads_query)
    draft.warn(
        "LLaMA-Factory puts one newline between instruction and input; format alpaca puts an empty "
        "line there. Rows without input are the same in both");
  if (alpaca_pairs && reads_query)
    draft.warn(fmt::format(
        "LLaMA-Factory puts a newline and the row's {} behind the prompt of the pairs of {}; here "
        "the prompt is {} alone, so rows with both must be written with one prompt",
        query_column(*about), name, text_in(*about, "columns.prompt", "instruction")));
}

// One a data set: given, or equal ones where its data sets take turns.
std::vector<std::string> weights_of(const Node& root, size_t datasets) {
  if (datasets < 2) return {};
  if (const Node* shares = in_file(root, "interleave_probs")) {
    const std::vector<std::string> given = texts(*shares);
    return given.size() == datasets ? given : std::vector<std::string>();
  }
  const bool take_turns = text(in_file(root, "mix_strategy")).starts_with("interleave");
  return std::vector<std::string>(take_turns ? datasets : 0, "1");
}

}  // namespace

void read_llama_factory_datasets(const Found& found, const ToolKey& key, Draft& draft) {
  const auto info = read_info(found.root, draft.directory());
  const std::string stage = text(in_file(found.root, "stage"));
  const std::vector<std::string> names = texts(found.value);
  const std::vector<std::string> weights = weights_of(found.root, names.size());
  const bool weighted = key.here == "data.train" && !weights.empty();
  for (size_t i = 0; i < names.size(); ++i) {
    DraftedDataset dataset =
        info ? read_named(names[i], *info, stage)
             : read_unexplained(
                   names[i], stage,
                   fmt::format("{} is a name of dataset_info.json, which is not in dataset_dir "
                               "nor beside the file; write the file of its rows",
                               names[i]));
    tell_of_rows(names[i], dataset, info ? in_file(info->names, names[i]) : nullptr, draft);
    if (weighted) dataset.more.push_back(Node::entry("weight", Node::scalar(weights[i])));
    look_for_rows(dataset, draft);
    draft.add_dataset(key.here, dataset.node(), dataset.missing);
  }
  draft.take(found, key.here);
}

}  // namespace qlora::recipes
