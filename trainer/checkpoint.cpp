#include "trainer/checkpoint.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/progress.h"
#include "base/warn_once.h"
#include "io/atomic_write.h"
#include "io/hashing.h"
#include "io/json.h"
#include "io/json_text.h"
#include "quant/tensor_file.h"
#include "trainer/train_state_json.h"

namespace qlora::trainer {
namespace {
namespace fs = std::filesystem;

constexpr const char* kManifest = "MANIFEST.json";
constexpr const char* kOptimizerState = "optimizer.safetensors";
constexpr const char* kPrefix = "checkpoint-";

std::string in(const std::string& directory, const std::string& name) {
  return (fs::path(directory) / name).string();
}

// Relative path -> file, without the manifest.
std::map<std::string, fs::path> files_of(const std::string& directory) {
  std::map<std::string, fs::path> files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(directory)) {
    const std::string name = entry.path().lexically_relative(directory).generic_string();
    if (entry.is_regular_file() && name != kManifest) files[name] = entry.path();
  }
  return files;
}

void write_manifest(const std::string& directory) {
  nlohmann::ordered_json files = nlohmann::ordered_json::object();
  for (const auto& [name, path] : files_of(directory)) {
    files[name] = {{"bytes", fs::file_size(path)}, {"xxh3_128", io::hash_file(path.string())}};
  }
  const nlohmann::ordered_json manifest = {{"format_version", 1}, {"files", files}};
  io::write_file_atomically(in(directory, kManifest), io::json_text(manifest, 2) + "\n");
}

uint64_t bytes_needed(const CheckpointParts& parts) {
  constexpr uint64_t kTexts = 1 << 20;
  const uint64_t times = parts.adapters.copies().empty() ? 1 : 2;  // tensors under two names
  return times * static_cast<uint64_t>(parts.adapters.values().nbytes()) +
         static_cast<uint64_t>(parts.optimizer.device_bytes() + parts.optimizer.host_bytes()) +
         kTexts;
}

// FormatError for a file that is missing, cut off or changed. Gives the files that the manifest
// does not list.
std::map<std::string, fs::path> require_listed_files(const std::string& directory, Look look) {
  const std::string path = in(directory, kManifest);
  if (!fs::exists(path)) {
    fail<FormatError>("{}: {} is missing; it was not written or not copied to its end", directory,
                      kManifest);
  }
  const nlohmann::json document = io::read_json_file(path);
  const io::JsonNode manifest(document, path);
  manifest.at("format_version").as_integer(1, 1);
  const io::JsonNode listed = manifest.at("files");
  std::map<std::string, fs::path> found = files_of(directory);
  if (!listed.value().is_object()) listed.reject("an object");
  for (const auto& [name, ignored] : listed.value().items()) {
    const io::JsonNode entry = listed.at(name);
    const auto file = found.find(name);
    if (file == found.end()) fail<FormatError>("{}: the file {} is missing", directory, name);
    const int64_t bytes = entry.at("bytes").as_integer(0, INT64_MAX);
    if (fs::file_size(file->second) != static_cast<uintmax_t>(bytes)) {
      fail<FormatError>("{}: {} must have {} bytes, found {}", directory, name, bytes,
                        fs::file_size(file->second));
    }
    const bool is_read =
        look == Look::kHashes || (look == Look::kAdapter && name != kOptimizerState);
    if (is_read && io::hash_file(file->second.string()) != entry.at("xxh3_128").as_string()) {
      fail<FormatError>("{}: {} has changed since it was written", directory, name);
    }
    found.erase(file);
  }
  for (const char* required : {"state.json", kOptimizerState, "adapter/adapter_config.json",
                               "adapter/adapter_model.safetensors"})
    if (!listed.value().contains(required))
      fail<FormatError>("{}: the manifest does not list {}", directory, required);
  return found;
}

// What require_listed_files() has to say; empty: nothing.
std::string fault_of(const std::string& directory, Look look) {
  try {
    require_listed_files(directory, look);
    return "";
  } catch (const Error& error) {
    return error.what();
  } catch (const fs::filesystem_error& error) {
    return fmt::format("{} cannot be read: {}", directory, error.code().message());
  }
}

// Renamed first: a removal cut short leaves nothing that looks like a checkpoint. What cannot be
// removed is no reason to end a training: the next start of the run tries again.
void remove_checkpoint(const std::string& run_dir, int64_t step) {
  try {
    io::remove_tree(io::move_aside(in(run_dir, checkpoint_name(step))));
  } catch (const IoError& error) {
    log::warning_once_of(in(run_dir, checkpoint_name(step)), "the old checkpoint {} stays: {}",
                         checkpoint_name(step), error.what());
  }
}

}  // namespace

std::string checkpoint_name(int64_t step) { return fmt::format("{}{:06}", kPrefix, step); }

std::optional<int64_t> step_of_checkpoint(const std::string& name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int64_t step = -1;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + std::strlen(kPrefix), end, step);
  if (error != std::errc() || stop != end || step < 0 || name != checkpoint_name(step))
    return std::nullopt;
  return step;
}

void save_checkpoint(const std::string& run_dir, const CheckpointParts& parts) {
  const std::string target = in(run_dir, checkpoint_name(parts.state.step));
  if (fs::exists(target) && fault_of(target, Look::kSizes).empty() &&
      !read_train_state(target).evaluation_due)
    return;
  const Progress progress("saving " + target);
  io::require_free_space(run_dir, bytes_needed(parts), "a checkpoint");
  io::AtomicDirectory directory(target, io::AtomicDirectory::Existing::kReplace);
  const std::string adapter = in(directory.path(), "adapter");
  fs::create_directory(adapter);
  lora::write_adapter(adapter, parts.adapters, parts.lora_options, parts.base);
  if (parts.complete_adapter) parts.complete_adapter(adapter);
  quant::write_tensors(in(directory.path(), kOptimizerState), parts.optimizer.state());
  parts.state.optimizer_steps = parts.optimizer.num_steps();
  io::write_file_atomically(in(directory.path(), "state.json"), to_json(parts.state));
  write_manifest(directory.path());
  directory.commit();
}

void verify_checkpoint(const std::string& directory, Look look) {
  const auto superfluous = require_listed_files(directory, look);
  if (!superfluous.empty()) {
    fail<FormatError>("{}: the file {} does not belong to the checkpoint; remove it", directory,
                      superfluous.begin()->first);
  }
}

TrainState read_train_state(const std::string& directory) {
  const std::string path = in(directory, "state.json");
  const nlohmann::json document = io::read_json_file(path);
  return train_state_from_json(io::JsonNode(document, path));
}

void load_checkpoint(const std::string& directory, CheckpointParts parts) {
  verify_checkpoint(directory);
  TrainState state = read_train_state(directory);
  const auto optimizer = quant::read_tensors(in(directory, kOptimizerState));
  const at::Tensor before = parts.adapters.values().clone();
  lora::read_adapter_tensors(in(directory, "adapter"), parts.adapters);
  try {
    parts.optimizer.load_state(optimizer, state.optimizer_steps);
  } catch (...) {
    const at::NoGradGuard no_grad;
    at::Tensor values = parts.adapters.values();
    values.copy_(before);
    parts.adapters.publish();
    throw;
  }
  parts.state = std::move(state);
}

std::vector<int64_t> checkpoint_steps(const std::string& run_dir) {
  std::vector<int64_t> steps;
  if (!fs::exists(run_dir)) return steps;
  for (const fs::directory_entry& entry : fs::directory_iterator(run_dir)) {
    const std::string name = entry.path().filename().string();
    const auto step = step_of_checkpoint(name);
    if (step && (entry.is_directory() || entry.is_symlink())) steps.push_back(*step);
  }
  std::ranges::sort(steps);
  return steps;
}

NewestCheckpoint newest_checkpoint(const std::string& run_dir, Look look) {
  NewestCheckpoint newest;
  std::vector<int64_t> steps = checkpoint_steps(run_dir);
  for (; !newest.whole && !steps.empty(); steps.pop_back()) {
    const std::string directory = in(run_dir, checkpoint_name(steps.back()));
    std::string fault = fault_of(directory, look);
    if (fault.empty())
      newest.whole = directory;
    else
      newest.passed_over.push_back({directory, std::move(fault)});
  }
  return newest;
}

bool point_best_at(const std::string& run_dir, int64_t step) {
  const std::string link = in(run_dir, "best");
  if (fs::is_directory(in(run_dir, checkpoint_name(step))))
    return io::replace_link(link, checkpoint_name(step));
  fs::remove(link);
  return true;
}

void rotate_checkpoints(const std::string& run_dir, int64_t limit, int64_t best_step) {
  if (limit == 0) return;
  std::vector<int64_t> older = checkpoint_steps(run_dir);
  older.resize(older.size() - std::min(older.size(), static_cast<size_t>(limit)));
  for (const int64_t step : older)
    if (step != best_step) remove_checkpoint(run_dir, step);
}

}  // namespace qlora::trainer
