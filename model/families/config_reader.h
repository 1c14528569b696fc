// One reading of a model's shape from two kinds of files: a Hugging Face config.json, whose keys
// have several spellings, and the metadata of a GGUF file. A family asks for a value by its
// ConfigKey and need not know which of the two it reads. Every key that was asked for counts as
// read; finish() names the others.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "io/gguf.h"
#include "io/json.h"

namespace qlora::model {

struct ConfigKey {
  std::vector<const char*> hugging_face;  // its spellings; those that are set must agree
  const char* gguf = nullptr;  // after the architecture's name: "attention.head_count"; null: none
  bool needed_in_gguf = false;
};

class ConfigReader {
 public:
  // Both borrow what they read.
  explicit ConfigReader(const io::JsonNode& config) : json_(&config), place_(config.place()) {}
  explicit ConfigReader(const io::GgufFile& file);

  const std::string& place() const { return place_; }
  // The one of the two that is read; the other is null.
  const io::JsonNode* json() const { return json_; }
  const io::GgufFile* gguf() const { return gguf_; }
  // "llama.": before the keys of a GGUF file.
  const std::string& gguf_prefix() const { return prefix_; }

  // The value, or `otherwise` where it is absent or null. FormatError naming file and key if it is
  // of another type, out of the range, or absent from a GGUF file that needs it.
  int64_t integer(const ConfigKey& key, int64_t otherwise, int64_t least = 0, int64_t most = kMost);
  // The same of a size: finish() names those that a config.json does not say, and what is taken.
  int64_t size(const ConfigKey& key, int64_t otherwise, int64_t least = 0, int64_t most = kMost);
  // Finite.
  double number(const ConfigKey& key, double otherwise);
  // A scale: above 0, and so as a float, which is how it multiplies.
  double positive(const ConfigKey& key, double otherwise);
  // The same, or 0 for none: where it is absent or null, and where a GGUF file says 0.
  double positive_or_none(const ConfigKey& key);
  bool boolean(const ConfigKey& key, bool otherwise);
  std::string text(const ConfigKey& key, const std::string& otherwise);
  std::vector<int64_t> integers(const ConfigKey& key);  // of GGUF; booleans are 0 and 1
  bool has(const ConfigKey& key);
  // Also where it is null.
  bool is_spelled(const ConfigKey& key);
  // The value in a config.json; null where it is absent, null, or a GGUF file is read. FormatError
  // naming both where two spellings differ.
  std::optional<io::JsonNode> node(const ConfigKey& key);
  // How the file spells the key: "config.json.hidden_size", "model.gguf: llama.embedding_length".
  std::string place_of(const ConfigKey& key);

  // Counts as read, by a reader of its own.
  void note_read(std::initializer_list<const char*> hugging_face,
                 std::initializer_list<const char*> gguf = {});
  // A key of config.json whose only value here is this, which it also is without the key.
  // FormatError naming the key where another is found.
  void require(const char* hugging_face, bool only);
  void require(const char* hugging_face, double only);
  void require(const char* hugging_face, std::initializer_list<const char*> known);
  // Dropout of the base, which is not applied here: warned of where it is not 0.
  void note_dropout(std::initializer_list<const char*> hugging_face);
  // What no family reads: warns of keys that are set and that nobody asked for, refuses values that
  // would make another model of any family.
  void finish();

 private:
  static constexpr int64_t kMost = int64_t{1} << 31;

  bool in_gguf(const ConfigKey& key);
  void finish_json();
  void finish_gguf();

  const io::JsonNode* json_ = nullptr;
  const io::GgufFile* gguf_ = nullptr;
  std::string place_, prefix_;
  std::set<std::string> read_;
  std::vector<std::string> unsaid_;  // "vocab_size 32000": sizes that nobody said
};

}  // namespace qlora::model
