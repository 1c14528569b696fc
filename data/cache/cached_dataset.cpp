#include "data/cache/cached_dataset.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/stopwatch.h"
#include "data/cache/cache_key.h"
#include "data/cache/example_file.h"
#include "data/cache/stored_report.h"
#include "data/dataset.h"
#include "data/shards.h"
#include "io/atomic_write.h"
#include "io/hashing.h"
#include "io/json.h"
#include "io/json_text.h"
#include "io/user_path.h"

namespace qlora::data {
namespace {
namespace fs = std::filesystem;

constexpr const char* kFile = "examples";

// The disk of the cache refused, not that of the rows; or its place is none.
struct CacheRefused : IoError {
  explicit CacheRefused(const std::string& why, bool no_place = false)
      : IoError(why), is_no_place(no_place) {}
  bool is_no_place;
};

template <typename Work>
auto in_cache(const Work& work) {
  try {
    return work();
  } catch (const IoError& error) {
    throw CacheRefused(error.what());
  } catch (const FormatError& error) {  // of what was written a moment ago
    throw CacheRefused(error.what());
  } catch (const ConfigError& error) {
    throw CacheRefused(error.what(), true);
  }
}

// What is loaded, and where the cache has it.
struct Wanted {
  const DatasetOptions& dataset;
  int32_t source;
  const DataOptions& options;
  const Tokenizer& tokenizer;
  const ChatTemplate* chat_template;
  const ModelTokens& model;
  const NeededRows* needed = nullptr;  // all rows
  std::string key = {}, entry = {};

  std::string key_now() const {
    return cache_key(dataset, options, tokenizer, chat_template, model, needed);
  }
  void find_in(const std::string& directory) {
    key = key_now();
    entry = (fs::path(directory) / io::hash_text(key)).string();
  }
  std::string file() const { return (fs::path(entry) / kFile).string(); }
};

DatasetReport read(const Wanted& wanted, const std::function<void(Example)>& take) {
  const auto read_until = [&](const std::function<void(Example)>& take_one,
                              const std::function<bool()>& enough) {
    return read_dataset(wanted.dataset, wanted.source, wanted.options, wanted.tokenizer,
                        wanted.chat_template, wanted.model, take_one, enough);
  };
  if (wanted.needed == nullptr) return read_until(take, {});
  NeededRowsCounter counter(wanted.options, *wanted.needed);
  return read_until(
      [&](Example example) {
        counter.add(example);
        take(std::move(example));
      },
      [&] { return counter.enough(); });
}

// Of the dataset's files: which they are, how long, and when they were changed. Pipes are read once
// and change as they are.
std::string state_of_files(const std::vector<std::string>& files) {
  std::string state;
  for (const std::string& file : files) {
    struct stat status {};
    if (stat(file.c_str(), &status) != 0)
      state += "gone;";
    else if (S_ISREG(status.st_mode))
      state += fmt::format("{} {} {} {}.{};", status.st_dev, status.st_ino, status.st_size,
                           status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
  }
  return state;
}

std::string state_of_files(const DatasetOptions& dataset) {
  try {
    return state_of_files(shards_of(dataset));
  } catch (const ConfigError&) {  // there are none
    return "none";
  }
}

LoadedDataset in_memory(const Wanted& wanted) {
  const std::string state = state_of_files(wanted.dataset);
  std::vector<Example> examples;
  DatasetReport report =
      read(wanted, [&](Example example) { examples.push_back(std::move(example)); });
  LoadedDataset dataset{std::move(examples), std::move(report), {}};
  if (state_of_files(wanted.dataset) != state)
    dataset.notes.push_back(
        fmt::format("data: {} changed while it was read; rows that it lost or got meanwhile may or "
                    "may not be among those of this run",
                    wanted.dataset.path));
  return dataset;
}

std::string not_kept(const Wanted& wanted, const char* reason) {
  return fmt::format("data cache: the tokenized rows of {} are not kept on disk: {}",
                     wanted.dataset.path, reason);
}

std::string note(const Wanted& wanted, const char* what, const ExampleFile& file, double seconds) {
  return fmt::format("data cache {}: {}, {:.1f} MB in {:.1f} s ({})", what, wanted.dataset.path,
                     static_cast<double>(file.bytes()) / 1e6, seconds, wanted.entry);
}

// What the text of a file says; `name` is the file's.
DatasetReport report_in(const std::string& file_text, const Wanted& wanted,
                        const std::string& name) {
  const nlohmann::json text = io::parse_json(file_text, name);
  const io::JsonNode node(text, name);
  if (node.at("key").as_string() != wanted.key)
    fail<FormatError>("{} is of other rows, or of another version", name);
  DatasetReport report = report_from(node.at("report"));
  report.path = wanted.dataset.path;
  report.format = wanted.dataset.format;
  return report;
}

LoadedDataset loaded(const Wanted& wanted, std::shared_ptr<const ExampleFile> file,
                     const std::string& name) {
  DatasetReport report = report_in(file->text(), wanted, name);
  return {Examples(std::move(file)), std::move(report), {}};
}

// Nothing if there is no entry, or none that can be used; the second is noted.
std::optional<LoadedDataset> from_cache(const Wanted& wanted, std::vector<std::string>& notes) {
  const Stopwatch watch;
  const std::string name = wanted.file();
  std::error_code missing;
  if (!fs::exists(name, missing)) return std::nullopt;
  try {
    const auto file = ExampleFile::open(name, wanted.source);
    LoadedDataset dataset = loaded(wanted, file, name);
    dataset.notes = {note(wanted, "hit", *file, watch.seconds())};
    return dataset;
  } catch (const FormatError& error) {
    notes.push_back(fmt::format("data cache: {}; it is made anew", error.what()));
  } catch (const IoError& error) {
    notes.push_back(fmt::format("data cache: {}; it is made anew", error.what()));
  }
  return std::nullopt;
}

void require_room(const Wanted& wanted) {
  // A token is four or five letters of the rows, and takes four bytes and one of the mask.
  constexpr double kBytesAByte = 1.25;
  if (wanted.dataset.max_rows > 0 || wanted.needed != nullptr) return;
  io::require_free_space(
      wanted.entry,
      static_cast<uint64_t>(kBytesAByte *
                            static_cast<double>(estimated_text_bytes(wanted.dataset))),
      fmt::format("the tokenized rows of {}", wanted.dataset.path));
}

void write_examples(const Wanted& wanted, const std::string& name) {
  std::unique_ptr<ExampleFileWriter> file =
      in_cache([&] { return std::make_unique<ExampleFileWriter>(name); });
  const DatasetReport report =
      read(wanted, [&](Example example) { in_cache([&] { file->add(example); }); });
  const nlohmann::ordered_json text = {{"key", wanted.key}, {"report", stored_report(report)}};
  in_cache([&] { file->finish(io::json_text_in_utf8(text)); });
}

// Whether it is what entries are called: the hash of a key.
bool is_entry(const std::string& name) {
  return name.size() == 32 && name.find_first_not_of("0123456789abcdef") == std::string::npos;
}

LoadedDataset made_in_cache(const Wanted& wanted) {
  const Stopwatch watch;
  // Before the room is looked at: kills have left them, and nobody may ask for the same rows again.
  io::remove_abandoned(fs::path(wanted.entry).parent_path().string(), is_entry);
  in_cache([&] { require_room(wanted); });
  io::AtomicDirectory directory = in_cache(
      [&] { return io::AtomicDirectory(wanted.entry, io::AtomicDirectory::Existing::kReplace); });
  const std::string name = (fs::path(directory.path()) / kFile).string();
  write_examples(wanted, name);
  const auto file = in_cache([&] { return ExampleFile::open(name, wanted.source); });
  LoadedDataset dataset = loaded(wanted, file, name);
  // The mapping stays, whatever becomes of the directory.
  if (wanted.chat_template != nullptr && wanted.chat_template->has_read_clock()) {
    dataset.notes = {not_kept(wanted, "the chat template writes today's date into them")};
    return dataset;
  }
  dataset.notes = {note(wanted, "made", *file, watch.seconds())};
  if (wanted.key_now() != wanted.key) {
    dataset.notes.push_back(
        fmt::format("data cache: {} changed while it was read; the next run reads it again",
                    wanted.dataset.path));
    return dataset;
  }
  try {
    directory.commit();
  } catch (const IoError& error) {  // also where another run was faster by a moment
    dataset.notes.push_back(fmt::format("data cache: {}; the next run looks again", error.what()));
  }
  return dataset;
}

// Few enough to read them into memory each time, whatever the size of their files.
bool are_few(const NeededRows* needed, const DataOptions& options) {
  constexpr int64_t kBytesAToken = 5;
  return needed != nullptr && options.cache == "auto" &&
         needed->sequences < kLargeDataset / kBytesAToken / options.sequence_length;
}

LoadedDataset make_or_keep_in_memory(const Wanted& wanted) {
  try {
    return made_in_cache(wanted);
  } catch (const CacheRefused& error) {
    const std::string why = error.what();
    if (wanted.options.cache == "true") {
      const std::string message = fmt::format(
          "data.cache: the tokenized rows cannot be written: {}; name another place with "
          "data.cache_dir, or keep them in memory with data.cache: false",
          why);
      if (error.is_no_place) throw ConfigError(message);
      throw IoError(message);
    }
    LoadedDataset dataset = in_memory(wanted);
    dataset.notes.push_back(
        fmt::format("data cache: {}; the rows of {} are in memory", why, wanted.dataset.path));
    return dataset;
  }
}

}  // namespace

std::string cache_directory(const DataOptions& options) {
  if (!options.cache_dir.empty()) return options.cache_dir;
  const std::string caches = io::user_directory("XDG_CACHE_HOME", ".cache");
  return caches.empty() ? "" : (fs::path(caches) / "qlora" / "tokenized").string();
}

bool lies_on_disk(const DatasetOptions& dataset, const DataOptions& options) {
  if (options.cache == "false" || !is_at_hand(dataset)) return false;
  return options.cache == "true" || estimated_text_bytes(dataset) >= kLargeDataset;
}

bool looks_on_disk(const DataOptions& options, const NeededRows* needed) {
  const auto lies_there = [&](const DatasetOptions& set) { return lies_on_disk(set, options); };
  return std::ranges::any_of(options.eval, lies_there) ||
         (!are_few(needed, options) && std::ranges::any_of(options.train, lies_there));
}

LoadedDataset load_dataset(const DatasetOptions& dataset, int32_t source,
                           const DataOptions& options, const Tokenizer& tokenizer,
                           const ChatTemplate* chat_template, const ModelTokens& model,
                           const NeededRows* needed) {
  Wanted wanted{dataset, source, options, tokenizer, chat_template, model, needed};
  if (!lies_on_disk(dataset, options) || are_few(needed, options)) return in_memory(wanted);
  const std::string directory = cache_directory(options);
  if (directory.empty()) {
    LoadedDataset rows = in_memory(wanted);
    rows.notes.push_back(not_kept(
        wanted,
        "neither data.cache_dir nor XDG_CACHE_HOME nor HOME names a place for them in full"));
    return rows;
  }
  wanted.find_in(directory);
  std::vector<std::string> notes;
  if (auto found = from_cache(wanted, notes)) return *std::move(found);
  LoadedDataset made = make_or_keep_in_memory(wanted);
  made.notes.insert(made.notes.begin(), notes.begin(), notes.end());
  return made;
}

std::optional<DatasetReport> cached_report(const DatasetOptions& dataset,
                                           const DataOptions& options, const Tokenizer& tokenizer,
                                           const ChatTemplate* chat_template,
                                           const ModelTokens& model) {
  Wanted wanted{dataset, 0, options, tokenizer, chat_template, model};
  const std::string directory = cache_directory(options);
  if (!lies_on_disk(dataset, options) || directory.empty()) return std::nullopt;
  try {
    wanted.find_in(directory);
    return report_in(ExampleFile::read_text(wanted.file()), wanted, wanted.file());
  } catch (const Error&) {  // there is none, or none that a run would take
    return std::nullopt;
  }
}

}  // namespace qlora::data
