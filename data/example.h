// One training row after tokenization, and the options that decide how rows become examples.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace qlora {
class Faults;
}

namespace qlora::data {

// Rows of a chosen and a rejected answer to one prompt (readers/read_preference.cpp).
constexpr const char* kPreferenceFormat = "preference";

// In place of a token that is not trained, among labels and targets; as transformers has it.
constexpr TokenId kIgnore = -100;

// Which of two answers to one prompt an example ends in. The two of a pair are neighbours, the
// chosen one first.
enum class Side : uint8_t { kNone, kChosen, kRejected };

// Tokens and, for each, whether the model is trained to produce it. supervised[0] never counts:
// nothing predicts it. Of a model with an encoder these are the decoder's: its start, and the
// labels.
struct Example {
  std::vector<TokenId> tokens;
  std::vector<uint8_t> supervised;    // same length, 0 or 1
  int64_t row = -1;                   // position in its file, from 0
  int32_t source = 0;                 // index of its dataset in the recipe
  std::vector<TokenId> encoded = {};  // what an encoder reads; empty for a model without one
  Side side = Side::kNone;

  // What the model reads of it: with an encoder nothing follows on the last token, which is not
  // read.
  int64_t length() const {
    return static_cast<int64_t>(encoded.empty() ? tokens.size()
                                                : encoded.size() + tokens.size() - 1);
  }
  int64_t num_supervised() const;  // over positions 1..n-1
};

// XXH3-128 over the tokens and masks of all examples in order, as hex. A resumed run must find the
// same one.
std::string examples_fingerprint(const std::vector<Example>& examples);
std::string examples_fingerprint(std::span<const Example> examples);

// Two tokens: one that is read and one that is predicted.
constexpr int64_t kShortestSequence = 2;
// ConfigError that names data.sequence_length if that is shorter.
void require_sequence_length(int64_t sequence_length);

// Answers, everything, or the last answer of a conversation.
enum class TrainOn { kAssistant, kAll, kLast };
enum class OnOverlength { kError, kDrop, kTruncateLeft, kTruncateRight, kSplit };

// One entry of data.train or data.eval in the recipe.
struct DatasetOptions {
  std::string path;
  std::string format = "chat";  // alpaca | chat | sharegpt | completion | input_output | text |
                                // pretokenized | preference
  std::map<std::string, std::string>
      fields;  // our field -> the file's field, e.g. {"instruction": "question"}
  // completion, input_output, preference of texts: between prompt and answer, part of the prompt
  std::string separator = {};
  int64_t max_rows = 0;  // the first so many of its files; 0: all
  // Of an example; others are left out, and pairs of which either answer is outside. 0: no bound.
  int64_t min_tokens = 0, max_tokens = 0;
  double weight = 0.0;  // in data.train: its part of an epoch (mixture.h); 0: none
  // The system message of conversations that bring none; empty: they have none.
  std::string system = {};

  bool keeps_length(int64_t tokens) const {
    return tokens >= min_tokens && (max_tokens == 0 || tokens <= max_tokens);
  }
};

struct DataOptions {
  std::vector<DatasetOptions> train, eval;
  std::string mix_by = "rows";  // what the weights share out: rows | tokens
  bool deduplicate = false;     // leaves out training rows that an earlier one repeats
  double eval_fraction = 0.0;   // of the training rows, chosen by keyed permutation; 0: none
  int64_t sequence_length = 1024;
  bool length_is_models = false;  // sequence_length is what the model reaches; no recipe sets it
  bool packing = true;
  bool shuffle = true;
  int64_t shuffle_block = 0;  // examples, or pairs, that shuffle mixes with one another; 0: all
  TrainOn train_on = TrainOn::kAssistant;
  OnOverlength on_overlength = OnOverlength::kError;
  std::string chat_template;  // a file, a built-in's name or template text; empty: the model's
  // Beside a text in chat_template, which an adapter's directory brought: its text for rows with
  // tools. No recipe sets it.
  std::string tool_use_template;
  std::string prompt_style = "chat_template";  // for alpaca rows: chat_template | alpaca
  // Where tokenized rows lie: auto (on disk if the files are large) | true (on disk) | false (in
  // memory). The same examples come of each (cache/cached_dataset.h).
  std::string cache = "auto";
  std::string cache_dir;  // empty: ~/.cache/qlora/tokenized
  bool audit = true;      // refuses rows that are hardly meant (dataset_doubt()); train.audit

  // Whether the rows are pairs: those of every dataset are, or of none.
  bool has_pairs() const;

  // Whether rows of data.train teach answers to messages in the chat template.
  bool trains_conversations() const;
  // Whether Alpaca's own words (prompt_style) are all in which they teach answers.
  bool trains_alpaca_prompts() const;

  // Throws ConfigError naming the key.
  void validate() const;
  // The same, as far as all of it can be told together.
  void find_faults(Faults& faults) const;
};

}  // namespace qlora::data
