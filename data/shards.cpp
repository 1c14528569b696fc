#include "data/shards.h"

#include <glob.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "data/row_files/row_file.h"
#include "fmt/ranges.h"
#include "io/json_text.h"
#include "io/read_file.h"

namespace qlora::data {
namespace {
namespace fs = std::filesystem;

constexpr std::array kExtensions = {".jsonl", ".json",    ".ndjson", ".csv",
                                    ".tsv",   ".parquet", ".arrow",  ".feather"};
// What `datasets` and the hub write beside rows.
constexpr std::array kDescriptions = {"dataset_info.json", "dataset_infos.json",
                                      "dataset_dict.json", "state.json"};

template <size_t size>
bool is_one_of(const std::array<const char*, size>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool is_rows_file(const fs::path& path, const DatasetOptions& dataset) {
  std::error_code ignored;
  const std::string name = path.filename().string(), extension = rows_extension(name);
  const bool is_text = dataset.format == "text" && extension == ".txt";
  return !name.starts_with('.') && !is_one_of(kDescriptions, name) &&
         (is_text || is_one_of(kExtensions, extension)) && fs::is_regular_file(path, ignored);
}

// "train" of "train-00000-of-00002.parquet".
std::string first_word(const std::string& name) {
  const auto end = std::find_if(name.begin(), name.end(), [](char c) {
    return std::isalpha(static_cast<unsigned char>(c)) == 0;
  });
  return {name.begin(), end};
}

// A folder in the hub's layout holds what is to be trained on beside what is to be held out.
void check_one_split(const std::string& folder, const std::vector<std::string>& shards) {
  constexpr std::array kTrain = {"train", "training"};
  constexpr std::array kHeldOut = {"test", "valid", "validation", "val", "dev", "eval"};
  std::set<std::string> train, held_out;
  for (const std::string& shard : shards) {
    const std::string word = first_word(fs::path(shard).filename().string());
    if (is_one_of(kTrain, word)) train.insert(word);
    if (is_one_of(kHeldOut, word)) held_out.insert(word);
  }
  if (train.empty() || held_out.empty()) return;
  fail<ConfigError>("{}: the folder holds the splits {} and {}; name one by a pattern, such as {}",
                    folder, fmt::join(train, ", "), fmt::join(held_out, ", "),
                    (fs::path(folder) / (*train.begin() + "*")).string());
}

std::vector<std::string> names_within(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    names.push_back(entry.path().filename().string());
  std::ranges::sort(names);
  return names;
}

[[noreturn]] void fail_without_rows(const std::string& folder) {
  std::vector<std::string> folders;
  std::error_code ignored;
  for (const std::string& name : names_within(folder))
    if (fs::is_directory(fs::path(folder) / name, ignored)) folders.push_back(name);
  if (fs::exists(fs::path(folder) / "dataset_dict.json", ignored))
    fail<ConfigError>(
        "{}: the folder holds several splits, each in a folder of its own ({}); name "
        "one, such as {}",
        folder, fmt::join(folders, ", "),
        (fs::path(folder) / (folders.empty() ? "train" : folders.back())).string());
  fail<ConfigError>(
      "{}: the folder holds no file of rows ({}, {}, packed with .gz or .zst or not){}", folder,
      fmt::join(kExtensions, ", "), "with format: text also .txt",
      folders.empty()
          ? ""
          : fmt::format("; its folders are {}, which are not searched", fmt::join(folders, ", ")));
}

// The files that state.json of save_to_disk lists; none if there is no such file.
std::vector<std::string> saved_shards(const std::string& folder) {
  const fs::path state = fs::path(folder) / "state.json";
  std::error_code ignored;
  if (!fs::is_regular_file(state, ignored)) return {};
  const Json json = io::ordered_json_or_discarded(io::read_bytes(state.string()));
  if (!json.is_object() || !json.contains("_data_files") || !json["_data_files"].is_array())
    return {};
  if (const auto indices = json.find("_indices_data_files");
      indices != json.end() && indices->is_array() && !indices->empty())
    fail<FormatError>(
        "{}: the dataset was saved with a table of indices beside its rows; save it again with "
        "flatten_indices().save_to_disk(...)",
        state.string());
  std::vector<std::string> shards;
  for (const Json& file : json["_data_files"]) {
    const auto name = file.is_object() ? file.find("filename") : file.end();
    if (!file.is_object() || name == file.end() || !name->is_string())
      fail<FormatError>("{}: an entry of _data_files must have a filename", state.string());
    shards.push_back((fs::path(folder) / name->get<std::string>()).string());
  }
  return shards;
}

std::vector<std::string> shards_in_folder(const DatasetOptions& dataset) {
  const std::string& folder = dataset.path;
  std::vector<std::string> shards = saved_shards(folder);
  if (!shards.empty()) return shards;
  for (const std::string& name : names_within(folder))
    if (const fs::path path = fs::path(folder) / name; is_rows_file(path, dataset))
      shards.push_back(path.string());
  if (shards.empty()) fail_without_rows(folder);
  check_one_split(folder, shards);
  return shards;
}

bool is_pattern(const std::string& path) { return path.find_first_of("*?[") != std::string::npos; }

std::vector<std::string> matched_shards(const std::string& pattern) {
  glob_t found{};
  const int status = glob(pattern.c_str(), GLOB_NOSORT, nullptr, &found);
  std::vector<std::string> shards;
  std::error_code ignored;
  for (size_t i = 0; status == 0 && i < found.gl_pathc; ++i)
    if (!fs::is_directory(found.gl_pathv[i], ignored)) shards.emplace_back(found.gl_pathv[i]);
  globfree(&found);
  std::ranges::sort(shards);
  if (shards.empty())
    fail<ConfigError>("{}: no file matches the pattern; {} has [{}]", pattern,
                      fs::path(pattern).parent_path().string(),
                      fmt::join(names_within(fs::path(pattern).parent_path()), ", "));
  return shards;
}

// "org/name" where a recipe's directory, or this one, has no folder "org".
bool looks_like_hub_id(const fs::path& path) {
  std::error_code unreadable;
  return path.has_parent_path() && path.extension().empty() &&
         path.string().find_first_of("*?[") == std::string::npos &&
         !fs::exists(path.parent_path(), unreadable) && !unreadable;
}

// What a path that is not there may be meant for; paths of recipes have the recipe's directory in
// front of them already.
void check_is_local(const std::string& path) {
  std::error_code ignored;
  if (fs::exists(path, ignored)) return;
  for (const char* scheme : {"https:/", "http:/", "s3:/", "gs:/", "hf:/"})
    if (path.find(scheme) != std::string::npos)
      fail<ConfigError>("{}: a dataset must be a file; nothing is downloaded, so fetch it first",
                        path);
  if (path.find("file:/") != std::string::npos)
    fail<ConfigError>("{}: a dataset must be a file; write its path alone, without file://", path);
  if (path.find('$') != std::string::npos)
    fail<ConfigError>(
        "{}: there is no such file, and variables are not replaced; write the path itself, or ~/ "
        "for the home directory",
        path);
  if (looks_like_hub_id(path))
    fail<ConfigError>(
        "{}: there is no such file; if that is the name of a data set on the hub, fetch it first "
        "and give the files: nothing is downloaded",
        path);
}

std::vector<std::string> shards_or_none(const DatasetOptions& dataset) {
  try {
    return shards_of(dataset);
  } catch (const Error&) {
    return {};
  }
}

// Text that packs to one byte; what prose and JSON of it come to.
double text_bytes_a_byte(const std::string& path) {
  const std::string outer = fs::path(path).extension().string();
  if (outer == ".gz" || outer == ".zst") return 4.0;
  return outer == ".parquet" ? 2.0 : 1.0;
}

}  // namespace

bool is_named_as_rows(const std::string& path) {
  return is_one_of(kExtensions, rows_extension(path));
}

std::vector<std::string> shards_of(const DatasetOptions& dataset) {
  std::error_code ignored;
  check_is_local(dataset.path);
  if (fs::is_directory(dataset.path, ignored)) return shards_in_folder(dataset);
  if (is_pattern(dataset.path) && !fs::exists(dataset.path, ignored))
    return matched_shards(dataset.path);
  return {dataset.path};
}

bool share_a_file(const DatasetOptions& a, const DatasetOptions& b) {
  const std::vector<std::string> others = shards_or_none(b);
  return std::ranges::any_of(shards_or_none(a), [&](const std::string& file) {
    return std::ranges::any_of(others, [&](const std::string& other) {
      std::error_code missing;
      return fs::equivalent(file, other, missing) && !missing;
    });
  });
}

bool is_at_hand(const DatasetOptions& dataset) {
  const std::vector<std::string> shards = shards_or_none(dataset);
  return !shards.empty() && std::ranges::all_of(shards, [](const std::string& shard) {
    std::error_code missing;
    return fs::exists(shard, missing);
  });
}

int64_t estimated_text_bytes(const DatasetOptions& dataset) {
  double bytes = 0;
  for (const std::string& shard : shards_or_none(dataset)) {
    std::error_code missing;
    const auto size = fs::file_size(shard, missing);
    if (!missing) bytes += text_bytes_a_byte(shard) * static_cast<double>(size);
  }
  return static_cast<int64_t>(bytes);
}

}  // namespace qlora::data
