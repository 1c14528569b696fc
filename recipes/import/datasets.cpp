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

// What the library `datasets` reads files with; each stands in the place of a path.
constexpr const char* kLoaders[] = {"json", "csv", "parquet", "arrow", "text", "pandas"};

bool is_loader(const std::string& path) {
  return std::ranges::find(kLoaders, path) != std::end(kLoaders);
}

bool is_file(const std::string& path, const std::string& directory) {
  if (path.starts_with('/') || path.starts_with('.') || path.starts_with('~')) return true;
  if (path.ends_with('/') || is_there(path, directory)) return true;
  return std::any_of(std::begin(kRowEndings), std::end(kRowEndings),
                     [&](const char* ending) { return path.ends_with(ending); });
}

// Those of data_files: a file, a list of files, or a map of such by their splits.
std::vector<std::string> files_of(const Node& entry) {
  const Node* files = in_file(entry, "data_files");
  if (files && files->is_map()) files = in_file(*files, text(in_file(entry, "split"), "train"));
  if (!files || is_off(*files)) return {};
  return files->is_list() ? texts(*files) : std::vector<std::string>{files->text};
}

// A file of a folder, which may be named with the folder or from within it.
std::string file_in(const std::string& folder, const std::string& file,
                    const std::string& directory) {
  if (folder.empty() || !is_file(folder, directory) || fs::path(file).is_absolute()) return file;
  const std::string within = (fs::path(folder) / file).string();
  const std::string begin = folder.ends_with('/') ? folder : folder + "/";
  const bool has_folder =
      file.starts_with(begin) || (is_there(file, directory) && !is_there(within, directory));
  return has_folder ? file : within;
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

bool is_there(const std::string& path, const std::string& directory) {
  std::error_code none;
  return fs::exists(fs::path(directory) / path, none) || fs::exists(path, none);
}

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
  else if (dataset.path.find("://") != std::string::npos)
    dataset.missing =
        fmt::format("{} is not on this machine; download it and name its file", dataset.path);
  else if (is_file(dataset.path, draft.directory()))
    return;
  else if (is_loader(dataset.path))
    dataset.missing = fmt::format(
        "a file of rows: {} is what reads it there, and data_files does not name it", dataset.path);
  else
    dataset.missing =
        fmt::format("{} is a data set of the Hub; download it and name its file", dataset.path);
}

void add_rows(const std::string& list, const DraftedDataset& dataset, const Node& entry,
              Draft& draft) {
  const std::vector<std::string> files = files_of(entry);
  const Node* named = in_file(entry, "data_files");
  DraftedDataset all = dataset;
  if (files.empty() && named && !is_off(*named) && all.missing.empty())
    all.missing = fmt::format("the files of rows, which are not in data_files of {}", dataset.path);
  if (files.empty() || (!dataset.path.empty() && !is_loader(dataset.path)))
    look_for_rows(all, draft);
  if (files.empty()) return draft.add_dataset(list, all.node(), all.missing);
  for (const std::string& file : files) {
    DraftedDataset one = all;
    one.path = file_in(dataset.path, file, draft.directory());
    look_for_rows(one, draft);
    draft.add_dataset(list, one.node(), one.missing);
    all.missing.clear();  // told once
  }
}

std::string first_file(const std::string& path, const Node& entry, const Draft& draft) {
  const std::vector<std::string> files = files_of(entry);
  return files.empty() ? path : file_in(path, files[0], draft.directory());
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
