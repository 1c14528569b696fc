// One dataset file -> examples, tokenized on all cores with the order of the rows kept. Rows that
// are wrong are told together (bad_rows.h), what is wrong with the file at once. Whatever the
// number of threads, the result and what an error says are the same. Left by Stopped between two
// rows if a stop is wanted (base/stop.h).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/chat_template.h"
#include "data/dataset_report.h"
#include "data/embedded_tokens.h"
#include "data/example.h"
#include "data/examples.h"

namespace qlora::data {

struct Dataset {
  std::vector<Example> examples;
  DatasetReport report;
};

// `source` is the index of the dataset in its list of the recipe. `chat_template` may be null if no
// row needs one. FormatError for a token that `model` has no embedding for.
Dataset read_dataset(const DatasetOptions& dataset, int32_t source, const DataOptions& options,
                     const Tokenizer& tokenizer, const ChatTemplate* chat_template,
                     const ModelTokens& model = {});

// The same with the examples handed on one by one as they are made, in their order: a bounded
// number of rows is in memory. Reading ends before the last row where enough() says so, which is
// asked every few thousand rows, after the same ones whatever the machine.
DatasetReport read_dataset(const DatasetOptions& dataset, int32_t source,
                           const DataOptions& options, const Tokenizer& tokenizer,
                           const ChatTemplate* chat_template, const ModelTokens& model,
                           const std::function<void(Example)>& take,
                           const std::function<bool()>& enough = {});

// Counts the examples and their tokens anew in their report, after some were taken out.
void recount(const Examples& examples, const Tokenizer& tokenizer, DatasetReport& report);

// Reads and tokenizes no more than the first `count` rows, and gives their examples: FormatError or
// ConfigError for what is wrong with the file or with them, also a row that is too long where the
// options say that is an error. For a look at a data set before anything that takes time. If there
// are bad rows among them, some thousand further ones are looked at too, so that the error tells of
// theirs, unless all are bad in the same way. `source` as in read_dataset().
std::vector<Example> read_first_rows(const DatasetOptions& dataset, int32_t source, int64_t count,
                                     const DataOptions& options, const Tokenizer& tokenizer,
                                     const ChatTemplate* chat_template,
                                     const ModelTokens& model = {});

// What an evaluation by exact match needs of a row: the ids that generation starts from, and the
// text of the last assistant turn (or completion) that must come out, without its end-of-turn
// token.
struct PromptAndAnswer {
  std::vector<TokenId> prompt;
  std::string answer;
  int64_t row = -1;
  int32_t source = 0;        // as in read_dataset()
  std::string location;      // as SourceRow's, for messages
  TokenId end_of_turn = -1;  // what the row ends the answer with; -1: no control token
};

// Of every row of which read_dataset() has an example: none of those that are left out by their
// length or have no supervised token. The prompts of rows that are cut are whole. ConfigError for
// formats without prompts (text, pretokenized); FormatError as from read_dataset().
std::vector<PromptAndAnswer> read_prompts_and_answers(const DatasetOptions& dataset, int32_t source,
                                                      const DataOptions& options,
                                                      const Tokenizer& tokenizer,
                                                      const ChatTemplate* chat_template,
                                                      const ModelTokens& model = {});

}  // namespace qlora::data
