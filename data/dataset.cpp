#include "data/dataset.h"

#include <algorithm>
#include <exception>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "base/parallel_for.h"
#include "base/progress.h"
#include "data/bad_rows.h"
#include "data/overlength.h"
#include "data/readers/unread_keys.h"
#include "data/row_source.h"
#include "data/token_counts.h"
#include "data/tokenize_row.h"

namespace qlora::data {
namespace {

constexpr int64_t kRowsInMemory = 4096;
// At first, and then no more than so many tokens or kRowsInMemory, where the first rows are bad.
constexpr int64_t kRowsLookedAt = 256, kTokensLookedAt = int64_t{1} << 21;
// Where a later row is bad there will be no run either: so many chunks behind the first one with
// bad rows tell enough of them.
constexpr int64_t kChunksLookedAt = 16;
constexpr size_t kMostKeys = 20;  // of those that are not read, which a file may have any number of

// Reads the rows of a dataset, a chunk at a time. What is wrong with rows is gathered, to be told
// together; what is wrong with a file, or with the options, ends the reading at once.
class RowReader {
 public:
  explicit RowReader(const DatasetOptions& dataset) : path_(dataset.path), source_(dataset) {}

  // work(row) for up to `count` further rows on all cores, then take(row, result) in the order of
  // the rows. A row is bad if either throws a FormatError; another error is thrown, the first one
  // in that order, behind the bad rows in front of it. Left by Stopped if `progress` is given and a
  // stop is wanted.
  template <typename Work, typename Take>
  void read(int64_t count, const Work& work, const Take& take, Progress* progress = nullptr) {
    using Result = std::invoke_result_t<Work, const SourceRow&>;
    const std::vector<SourceRow> rows = next_rows(count);
    std::vector<Result> results(rows.size());
    std::vector<std::exception_ptr> errors(rows.size());
    const auto is_stopped = [&] { return progress != nullptr && stop_wanted(); };
    parallel_for(static_cast<int64_t>(rows.size()), 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end && !is_stopped(); ++i) {
        const auto at = static_cast<size_t>(i);
        try {
          results[at] = work(rows[at]);
        } catch (...) {
          errors[at] = std::current_exception();
        }
        if (progress != nullptr) progress->count();
      }
    });
    if (progress != nullptr) progress->leave_if_stop_wanted();  // with rows that no thread took
    const int64_t before = rows_ - static_cast<int64_t>(rows.size());
    for (size_t i = 0; i < rows.size(); ++i)
      at_row(rows[i], before + static_cast<int64_t>(i), [&] {
        if (errors[i]) std::rethrow_exception(errors[i]);
        take(rows[i], std::move(results[i]));
      });
  }

  int64_t num_files() const { return source_.num_files(); }
  int64_t num_rows() const { return rows_; }
  bool is_at_end() const { return at_end_; }
  bool has_bad_rows() const { return !bad_.empty(); }
  bool are_all_alike_bad() const { return bad_.are_all_alike(rows_); }
  void refuse_bad_rows() const { bad_.throw_if_any(rows_read()); }

 private:
  RowsRead rows_read() const { return {path_, rows_, at_end_}; }

  std::vector<SourceRow> next_rows(int64_t count) {
    try {
      std::vector<SourceRow> rows = source_.next(count);
      rows_ += static_cast<int64_t>(rows.size());
      at_end_ = static_cast<int64_t>(rows.size()) < count;
      return rows;
    } catch (const FormatError& fault) {
      if (bad_.empty()) throw;
      throw FormatError(behind_bad_rows(rows_, fault.what()));
    } catch (const IoError& fault) {
      if (bad_.empty()) throw;
      throw IoError(behind_bad_rows(rows_, fault.what()));
    }
  }

  // What ends the reading when `rows` rows were looked at, behind what is wrong with those.
  std::string behind_bad_rows(int64_t rows, const std::string& fault) const {
    return bad_.empty() ? fault : bad_.to_text({path_, rows, false}) + "\n" + fault;
  }

  // Puts the row's place in front of what `work` complains about; it is behind `before` others.
  template <typename Work>
  void at_row(const SourceRow& row, int64_t before, const Work& work) {
    try {
      work();
    } catch (const FormatError& error) {
      bad_.add(row.location, error.what());
    } catch (const ConfigError& error) {
      throw ConfigError(behind_bad_rows(before, row.location + ": " + error.what()));
    }
  }

  std::string path_;
  RowSource source_;
  BadRows bad_;
  int64_t rows_ = 0;
  bool at_end_ = false;
};

// All of the reader's rows, until enough() is true, if it is given. Whether that was so.
// FormatError with the bad rows of the first chunk that has any and of the kChunksLookedAt behind
// it.
template <typename Work, typename Take>
bool for_each_row(RowReader& reader, const std::string& path, const Work& work, const Take& take,
                  const std::function<bool()>& enough = {}) {
  Progress progress("tokenizing " + path, 0, "rows");
  bool is_enough = false;
  int64_t chunks_with_bad = 0;  // the first one and all behind it
  while (!is_enough && !reader.is_at_end() && chunks_with_bad <= kChunksLookedAt) {
    reader.read(kRowsInMemory, work, take, &progress);
    if (reader.are_all_alike_bad()) break;  // so are the others
    chunks_with_bad += reader.has_bad_rows() ? 1 : 0;
    is_enough = !reader.is_at_end() && enough && enough();
  }
  reader.refuse_bad_rows();
  return is_enough;
}

void require_rows(int64_t rows, const std::string& path) {
  if (rows == 0)
    fail<FormatError>("{}: a dataset must have at least one row, the file is empty", path);
}

LengthPolicy length_policy(const DataOptions& options, const Tokenizer& tokenizer) {
  const auto& bos = tokenizer.special_tokens().bos;
  return {options.on_overlength, options.sequence_length, bos ? bos->id : -1,
          options.length_is_models};
}

// Takes the examples of a row that are outside of the dataset's bounds out of `examples`, and both
// of a pair if either is. Returns their number, a pair counting once.
int64_t take_out_by_length(const DatasetOptions& dataset, std::vector<Example>& examples) {
  const auto is_outside = [&](const Example& example) {
    return !dataset.keeps_length(example.length());
  };
  if (examples.empty() || examples.front().side == Side::kNone)
    return static_cast<int64_t>(std::erase_if(examples, is_outside));
  if (std::ranges::none_of(examples, is_outside)) return 0;
  examples.clear();
  return 1;
}

}  // namespace

Dataset read_dataset(const DatasetOptions& dataset, int32_t source, const DataOptions& options,
                     const Tokenizer& tokenizer, const ChatTemplate* chat_template,
                     const ModelTokens& model) {
  Dataset result;
  result.report =
      read_dataset(dataset, source, options, tokenizer, chat_template, model,
                   [&](Example example) { result.examples.push_back(std::move(example)); });
  return result;
}

DatasetReport read_dataset(const DatasetOptions& dataset, int32_t source,
                           const DataOptions& options, const Tokenizer& tokenizer,
                           const ChatTemplate* chat_template, const ModelTokens& model,
                           const std::function<void(Example)>& take,
                           const std::function<bool()>& enough) {
  const RowTokenizer row_tokenizer(tokenizer, chat_template, options, model);
  const LengthPolicy policy = length_policy(options, tokenizer);
  DatasetReport report;
  TokenCounts tokens(tokenizer);
  std::vector<Example> kept;  // of one row
  report.path = dataset.path;
  report.format = dataset.format;
  report.has_turns = find_format(dataset.format).has_turns;
  report.has_pairs = dataset.format == kPreferenceFormat;
  report.absent_fields = optional_fields(dataset);
  RowReader reader(dataset);
  report.ends_early = for_each_row(
      reader, dataset.path,
      [&](const SourceRow& row) { return row_tokenizer.tokenize(row.value, dataset); },
      [&](const SourceRow& row, TokenizedRow tokenized) {
        report.tools_unwritten += tokenized.loses_tools;
        report.marks_overruled += tokenized.overrules_marks;
        report.marks_ignored += tokenized.ignores_marks;
        report.others_compared += tokenized.compares_others;
        report.run_together += tokenized.runs_together;
        std::erase_if(report.absent_fields,
                      [&](const auto& field) { return row.value.contains(field.second); });
        for (const std::string& key : tokenized.unread_keys)
          if (report.unread_keys.size() < kMostKeys)
            report.unread_keys.emplace(key, field_it_may_be(key, dataset));
        for (const TokenId id : tokenized.end_of_turns) {
          if (id >= 0) report.end_of_turn_ids.insert(id);
        }
        for (Example& example : tokenized.examples) {
          example.row = row.index;
          example.source = source;
          report.rendered += example.side != Side::kRejected;
          if (example.length() > report.longest) {
            report.longest = example.length();
            report.longest_row = row.index;
          }
        }
        report.filtered += take_out_by_length(dataset, tokenized.examples);
        kept.clear();
        keep_row_within_length(std::move(tokenized.examples), policy, report, kept);
        if (reader.has_bad_rows() && !enough) return;  // nothing will come of the examples
        for (Example& example : kept) {
          tokens.add(example);
          take(std::move(example));
        }
      },
      enough);
  report.files = reader.num_files();
  report.rows = reader.num_rows();
  require_rows(report.rows, dataset.path);
  tokens.write_to(report);
  return report;
}

void recount(const Examples& examples, const Tokenizer& tokenizer, DatasetReport& report) {
  TokenCounts tokens(tokenizer);
  report.examples = 0;
  for_each_example(examples, [&](const ExampleView& example) {
    report.examples += example.side != Side::kRejected;
    tokens.add(example);
  });
  tokens.write_to(report);
}

std::vector<Example> read_first_rows(const DatasetOptions& dataset, int32_t source, int64_t count,
                                     const DataOptions& options, const Tokenizer& tokenizer,
                                     const ChatTemplate* chat_template, const ModelTokens& model) {
  const RowTokenizer row_tokenizer(tokenizer, chat_template, options, model);
  const LengthPolicy policy = length_policy(options, tokenizer);
  DatasetReport report;
  std::vector<Example> kept;
  int64_t tokens = 0;
  RowReader reader(dataset);
  const auto read = [&](int64_t rows) {
    reader.read(
        rows,
        [&](const SourceRow& row) { return row_tokenizer.tokenize(row.value, dataset).examples; },
        [&](const SourceRow& row, std::vector<Example> examples) {
          for (Example& example : examples) {
            example.row = row.index;
            example.source = source;
            tokens += example.length();
          }
          take_out_by_length(dataset, examples);
          keep_row_within_length(std::move(examples), policy, report, kept);
        });
  };
  read(count);
  require_rows(reader.num_rows(), dataset.path);
  // There will be no run: a look at more rows tells more of what must be mended before it.
  while (reader.has_bad_rows() && !reader.are_all_alike_bad() && !reader.is_at_end() &&
         reader.num_rows() < kRowsInMemory && tokens < kTokensLookedAt)
    read(kRowsLookedAt);
  reader.refuse_bad_rows();
  return kept;
}

std::vector<PromptAndAnswer> read_prompts_and_answers(const DatasetOptions& dataset, int32_t source,
                                                      const DataOptions& options,
                                                      const Tokenizer& tokenizer,
                                                      const ChatTemplate* chat_template,
                                                      const ModelTokens& model) {
  if (!find_format(dataset.format).has_turns) {
    fail<ConfigError>(
        "{}: an evaluation by exact match needs prompts and answers, which format {} does not "
        "have; "
        "use alpaca, chat, sharegpt, completion or preference rows",
        dataset.path, dataset.format);
  }
  const RowTokenizer row_tokenizer(tokenizer, chat_template, options, model);
  std::vector<PromptAndAnswer> result;
  const LengthPolicy policy = length_policy(options, tokenizer);
  const auto is_kept = [&](const SourceRow& row) {
    std::vector<Example> examples = row_tokenizer.tokenize(row.value, dataset).examples, kept;
    take_out_by_length(dataset, examples);
    DatasetReport uncounted;
    keep_row_within_length(std::move(examples), policy, uncounted, kept);
    return !kept.empty();
  };
  const auto last_turn = [&](const SourceRow& row) {
    if (!is_kept(row)) return PromptAndAnswer{};
    const Turn turn = row_tokenizer.turns(row.value, dataset).back();
    return PromptAndAnswer{.prompt = row_tokenizer.prompt_ids(turn),
                           .answer = turn.answer(tokenizer),
                           .row = row.index,
                           .source = source,
                           .location = row.location,
                           .end_of_turn = turn.end_of_turn};
  };
  RowReader reader(dataset);
  for_each_row(reader, dataset.path, last_turn, [&](const SourceRow&, PromptAndAnswer pair) {
    if (pair.row >= 0) result.push_back(std::move(pair));
  });
  return result;
}

}  // namespace qlora::data
