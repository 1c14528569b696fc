#include "data/cache/cache_key.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/path_error.h"
#include "data/shards.h"
#include "io/hashing.h"
#include "io/json_text.h"
#include "nlohmann/json.hpp"

namespace qlora::data {
namespace {
namespace fs = std::filesystem;

// Of the first and the last bytes of a file; all of a small one.
std::string hash_of_ends(const std::string& path, int64_t size) {
  constexpr int64_t kEnd = 64 << 10;
  std::ifstream file(path, std::ios::binary);
  io::Hasher hasher;
  std::string bytes(static_cast<size_t>(std::min(size, kEnd)), '\0');
  for (const int64_t begin : {int64_t{0}, size - static_cast<int64_t>(bytes.size())}) {
    file.seekg(begin);
    file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!file) fail_on_path(errno, "{} cannot be read", path);
    hasher.update(bytes);
  }
  return hasher.hex();
}

nlohmann::ordered_json file_key(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) fail_on_path(errno, "{} cannot be read", path);
  constexpr int64_t kNanoseconds = 1'000'000'000;
  return {{"path", fs::absolute(path).lexically_normal().string()},
          {"bytes", status.st_size},
          {"changed_ns", status.st_mtim.tv_sec * kNanoseconds + status.st_mtim.tv_nsec},
          {"ends", hash_of_ends(path, status.st_size)}};
}

nlohmann::ordered_json decoder_key(const ModelTokens& model) {
  if (!model.decoder) return nullptr;
  return {{"start", model.decoder->start}, {"pad", model.decoder->pad}};
}

// Nothing where all rows are read.
nlohmann::ordered_json needed_key(const NeededRows* needed, const DataOptions& options) {
  if (needed == nullptr) return nullptr;
  return {{"sequences", needed->sequences}, {"examples", needed->examples},
          {"seed", needed->seed},           {"packing", options.packing},
          {"shuffle", options.shuffle},     {"shuffle_block", options.shuffle_block}};
}

}  // namespace

std::string cache_key(const DatasetOptions& dataset, const DataOptions& options,
                      const Tokenizer& tokenizer, const ChatTemplate* chat_template,
                      const ModelTokens& model, const NeededRows* needed) {
  nlohmann::ordered_json key = {
      {"tokenization", kTokenizationVersion},
      {"files", nlohmann::ordered_json::array()},
      {"format", dataset.format},
      {"fields", dataset.fields},
      {"separator", dataset.separator},
      {"max_rows", dataset.max_rows},
      {"min_tokens", dataset.min_tokens},
      {"max_tokens", dataset.max_tokens},
      {"system", dataset.system},
      {"sequence_length", options.sequence_length},
      {"on_overlength", static_cast<int>(options.on_overlength)},
      {"train_on", static_cast<int>(options.train_on)},
      {"prompt_style", options.prompt_style},
      {"chat_template", nullptr},
      {"tokenizer", tokenizer.fingerprint()},
      {"embedding_rows", model.embedding_rows},
      {"decoder", decoder_key(model)},
      {"needed", needed_key(needed, options)},
  };
  for (const std::string& file : shards_of(dataset)) key["files"].push_back(file_key(file));
  if (chat_template != nullptr) key["chat_template"] = chat_template->source();
  if (chat_template != nullptr && !chat_template->tool_use_source().empty())
    key["tool_use_template"] = chat_template->tool_use_source();
  return io::json_text_in_utf8(key);
}

}  // namespace qlora::data
