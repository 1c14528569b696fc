// What became of the rows of one dataset, in numbers: printed before the first step, and what the
// audit judges by.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace qlora::data {

// Examples are counted after rendering; examples = rendered - filtered - dropped_overlength - split
// + pieces - dropped_unsupervised, less those of repeated rows.
// Numbers are kept with tokenized rows by their names in cache/stored_report.cpp.
struct DatasetReport {
  std::string path, format;
  bool has_turns =
      true;  // its rows end with an end-of-turn or end-of-text token that must be trained
  bool has_pairs = false;  // two answers a row, which count as one example

  int64_t files = 1;        // that the rows come from
  int64_t rows = 0;         // in the files
  int64_t max_rows = 0;     // of the data set; not kept with tokenized rows
  bool ends_early = false;  // the run's steps need no more rows: those behind were not read
  int64_t rendered =
      0;  // examples before the length policy; above rows where a template rewrites turns
  int64_t filtered = 0;              // outside of min_tokens and max_tokens
  int64_t repeated = 0;              // rows left out by deduplicate
  int64_t dropped_overlength = 0;    // on_overlength: drop
  int64_t truncated = 0;             // on_overlength: truncate_left, truncate_right
  int64_t split = 0, pieces = 0;     // on_overlength: split, and what it made of them
  int64_t dropped_unsupervised = 0;  // nothing left to train on
  int64_t examples = 0;              // kept

  int64_t tokens = 0, supervised_tokens = 0;  // of the kept examples
  int64_t longest = 0;                        // tokens, before the length policy
  int64_t longest_row = -1;
  int64_t end_of_turns = 0;     // supervised end-of-turn tokens
  int64_t double_bos = 0;       // examples that begin with two BOS tokens
  int64_t tools_unwritten = 0;  // rows whose tools, or their results, the template does not write
  int64_t marks_overruled = 0;  // rows with turns marked as context only that train_on: all trains
  int64_t marks_ignored = 0;    // rows with turns marked to be trained that no assistant says, or
                                // that are the prompt of a pair
  int64_t others_compared = 0;  // pairs with turns within an answer that no assistant says
  int64_t run_together = 0;     // completion rows without white space behind the prompt
  // Keys of the rows that nothing reads -> our field that each may be meant for, or "".
  std::map<std::string, std::string> unread_keys;
  // Our fields that `fields` names a key for which none of the rows has -> that key.
  std::map<std::string, std::string> absent_fields;
  std::set<TokenId>
      end_of_turn_ids;  // the tokens that end the answers: generation must stop at them

  // Whether all that was left are rows of earlier data sets: no fault of its own.
  bool only_repeats() const { return examples == 0 && repeated > 0; }
  // Examples that the length policy dropped or cut.
  int64_t beyond_length() const { return dropped_overlength + truncated + split; }
  double supervised_share() const {
    return tokens == 0 ? 0.0 : static_cast<double>(supervised_tokens) / static_cast<double>(tokens);
  }
};

// What can be trained on but is hardly meant, with the cure: no supervised end of turn, two BOS
// tokens. Empty if there is nothing of it.
std::string dataset_doubt(const DatasetReport& report, const Tokenizer& tokenizer);
// ConfigError with what became of the rows if no example is left to `purpose` ("train on"), or none
// with a supervised token.
void require_examples(const DatasetReport& report, const std::string& purpose);
// ConfigError with the cure for a dataset that cannot do what it is there for (`purpose`, as
// above): no example left (but for repeats of others), nothing supervised, and, with `doubts`, a
// dataset_doubt().
void audit_dataset(const DatasetReport& report, const std::string& purpose,
                   const Tokenizer& tokenizer, bool doubts = true);

// Sentences about what is allowed but probably not meant (end-of-turn tokens at which generation
// does not stop, tools that the template leaves out, keys that are not read though they may say
// what is to be trained); empty if all is well.
std::vector<std::string> dataset_warnings(const DatasetReport& report, const Tokenizer& tokenizer);

// Several lines for people: rows, what was dropped and why, tokens, supervised share.
std::string to_text(const DatasetReport& report);
// One JSON object with the fields above.
std::string to_json(const DatasetReport& report);

}  // namespace qlora::data
