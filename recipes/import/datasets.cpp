#include "recipes/import/datasets.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "recipes/import/conversions.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

constexpr const char* kRowEndings[] = {".json",  ".jsonl", ".csv", ".tsv", ".parquet",
                                       ".arrow", ".gz",    ".zst", ".txt"};

bool is_file(const std::string& path, const std::string& directory) {
  if (path.starts_with('/') || path.starts_with('.') || path.starts_with('~')) return true;
  std::error_code none;
  if (fs::exists(fs::path(directory) / path, none) || fs::exists(path, none)) return true;
  return std::any_of(std::begin(kRowEndings), std::end(kRowEndings),
                     [&](const char* ending) { return path.ends_with(ending); });
}

// `shown` is the beginning of the keys as the file has them, `listed` as the table has them.
void take_keys(const std::string& shown, const std::string& listed, const Node& map,
               const Node& root, const Tool& tool, Draft& draft) {
  for (const Node::Entry& one : map.entries) {
    const std::string key = shown + one.key, name = listed + one.key;
    const Found part{key, one.place, one.value, map, root};
    if (one.value.is_map() && has_keys_within(tool, name)) {
      take_keys(key + ".", name + ".", one.value, root, tool, draft);
      continue;
    }
    const ToolKey* known = find_key(tool, name);
    if (!known)
      draft.unknown(part, fmt::format("we know no such key of {}", tool.title));
    else if (one.value.kind == Node::Kind::kNull)
      draft.without_effect(part, "it has no value");
    else if (known->convert)
      known->convert(part, *known, draft);
    else
      draft.take(part, known->here);
  }
}

}  // namespace

void DraftedDataset::field(const std::string& ours, const std::string& theirs) {
  if (!theirs.empty() && theirs != ours) fields[ours] = theirs;
}

Node DraftedDataset::node() const {
  std::vector<Node::Entry> entries = {Node::entry("path", Node::string(path)),
                                      Node::entry("format", Node::string(format))};
  std::vector<Node::Entry> names;
  for (const auto& [ours, theirs] : fields)
    names.push_back(Node::entry(ours, Node::string(theirs)));
  if (!names.empty()) entries.push_back(Node::entry("fields", Node::map(std::move(names))));
  entries.insert(entries.end(), more.begin(), more.end());
  return Node::map(std::move(entries));
}

void look_for_rows(DraftedDataset& dataset, const Draft& draft) {
  if (!dataset.missing.empty()) return;
  if (dataset.path.empty())
    dataset.missing = "a file of rows, which the file does not name";
  else if (!is_file(dataset.path, draft.directory()))
    dataset.missing =
        fmt::format("{} is a data set of the Hub; download it and name its file", dataset.path);
}

bool learns_preferences(const Draft& draft) {
  const std::string objective = draft.text_of("train.objective");
  return objective == "dpo" || objective == "orpo";
}

void take_entry_keys(const Found& found, const std::string& list, const Node& entry,
                     const Tool& tool, Draft& draft) {
  take_keys(found.key + "[].", list + "[].", entry, found.root, tool, draft);
}

}  // namespace qlora::recipes
