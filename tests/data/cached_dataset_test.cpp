// Tokenized rows on disk: the same examples as without, taken again where they are whole.
#include "data/cache/cached_dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "data/prepare.h"
#include "io/atomic_write.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/support/chat_ml.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {
namespace fs = std::filesystem;

using test::ByteTokenizer;
using test::kChatMl;
using test::read_file;
using test::TempDir;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string completions(int count, const std::string& prompt = "p") {
  std::string rows;
  for (int i = 0; i < count; ++i)
    rows += fmt::format("{{\"prompt\": \"{}{}\", \"completion\": \"{}\", \"wieght\": 1}}\n", prompt,
                        i % 3, std::string(static_cast<size_t>(1 + i % 7), 'a'));
  return rows;
}

class CachedDataset : public ::testing::Test {
 protected:
  CachedDataset() {
    options_.cache = "true";
    options_.cache_dir = dir_ / "cache";
    options_.sequence_length = 64;
    rows_ = {dir_.write("rows.jsonl", completions(20)), "completion", {}};
  }

  LoadedDataset load() const { return load_dataset(rows_, 3, options_, tokenizer_, nullptr); }

  // The only entry's file of examples.
  std::string entry_file() const {
    std::string found;
    for (const fs::directory_entry& entry : fs::directory_iterator(dir_ / "cache")) {
      EXPECT_EQ(found, "");
      found = (entry.path() / "examples").string();
    }
    return found;
  }

  void expect_rows(const LoadedDataset& loaded) const {
    const Dataset plain = read_dataset(rows_, 3, options_, tokenizer_, nullptr);
    EXPECT_EQ(examples_fingerprint(loaded.examples), examples_fingerprint(plain.examples));
    EXPECT_EQ(to_json(loaded.report), to_json(plain.report));
  }

  const TempDir dir_;
  const ByteTokenizer tokenizer_;
  DataOptions options_;
  DatasetOptions rows_;
};

// A data set of some kind, with what it needs.
struct Kind {
  const char* format;
  std::string rows;
  ModelTokens model = {};
  OnOverlength on_overlength = OnOverlength::kError;
};

TEST_F(CachedDataset, RowsOfEveryKindAreTheSameMadeAndTaken) {
  const ChatTemplate chat_template(kChatMl);
  ModelTokens encoder;
  encoder.decoder = DecoderTokens{9, 8};
  const std::string chat =
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, )"
      R"({"role": "user", "content": "r"}, {"role": "assistant", "content": "bb"}], "tools": [{"type": "function", "function": {"name": "f"}}]})";
  const std::string pair = R"({"prompt": "p", "chosen": "yes", "rejected": "no"})";
  const std::vector<Kind> kinds = {
      {"completion", completions(9)},
      {"chat", chat + "\n" + chat + "\n"},
      {"text",
       R"({"text": "some words that are cut into pieces, since there are many of them"})",
       {},
       OnOverlength::kSplit},
      {"pretokenized", R"({"input_ids": [1, 2, 3], "labels": [-100, 2, 3]})"},
      {"preference", pair + "\n" + pair + "\n"},
      {"input_output", R"({"input": "ab", "output": "c"})", encoder},
  };
  for (const Kind& kind : kinds) {
    rows_ = {dir_.write(std::string(kind.format) + ".jsonl", kind.rows), kind.format, {}};
    if (rows_.format == "chat") rows_.fields = {{"system", "sistem"}};
    options_.on_overlength = kind.on_overlength;
    options_.sequence_length = kind.on_overlength == OnOverlength::kSplit ? 20 : 200;
    const Dataset plain = read_dataset(rows_, 3, options_, tokenizer_, &chat_template, kind.model);
    for (const char* what : {"data cache made: ", "data cache hit: "}) {
      const LoadedDataset loaded =
          load_dataset(rows_, 3, options_, tokenizer_, &chat_template, kind.model);
      EXPECT_THAT(loaded.notes, ElementsAre(AllOf(HasSubstr(what), HasSubstr(" MB in "))));
      EXPECT_EQ(to_json(loaded.report), to_json(plain.report)) << kind.format;
      EXPECT_EQ(loaded.report.unread_keys, plain.report.unread_keys);
      EXPECT_EQ(loaded.report.absent_fields, plain.report.absent_fields);
      EXPECT_EQ(loaded.report.has_pairs, plain.report.has_pairs);
      EXPECT_EQ(loaded.report.has_turns, plain.report.has_turns);
      ASSERT_EQ(loaded.examples.size(), plain.examples.size()) << kind.format;
      for (size_t i = 0; i < plain.examples.size(); ++i) {
        const Example found = loaded.examples[i].copy();
        EXPECT_EQ(found.tokens, plain.examples[i].tokens);
        EXPECT_EQ(found.supervised, plain.examples[i].supervised);
        EXPECT_EQ(found.encoded, plain.examples[i].encoded);
        EXPECT_EQ(found.row, plain.examples[i].row);
        EXPECT_EQ(found.source, 3);
        EXPECT_EQ(found.side, plain.examples[i].side);
      }
    }
  }
}

TEST_F(CachedDataset, TheReportIsKnownWithoutTheRows) {
  EXPECT_FALSE(cached_report(rows_, options_, tokenizer_, nullptr).has_value());
  const LoadedDataset loaded = load();
  const auto report = cached_report(rows_, options_, tokenizer_, nullptr);
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(to_json(*report), to_json(loaded.report));
  DataOptions others = options_;
  others.sequence_length = 63;
  EXPECT_FALSE(cached_report(rows_, others, tokenizer_, nullptr).has_value());
  options_.cache = "false";
  EXPECT_FALSE(cached_report(rows_, options_, tokenizer_, nullptr).has_value());
}

TEST_F(CachedDataset, AnEntryThatIsDamagedIsMadeAnew) {
  load();
  const std::string file = entry_file(), whole = read_file(file);
  std::string flipped = whole, older = whole;
  flipped[whole.size() / 2] = static_cast<char>(flipped[whole.size() / 2] ^ 4);
  --older[15];
  for (const std::string& damaged :
       {whole.substr(0, whole.size() / 2), std::string(), flipped, older, std::string("rows\n")}) {
    std::ofstream(file, std::ios::binary) << damaged;
    const LoadedDataset again = load();
    EXPECT_THAT(again.notes, ElementsAre(HasSubstr("it is made anew"), HasSubstr("made: ")));
    expect_rows(again);
    EXPECT_EQ(read_file(file), whole);
    EXPECT_THAT(load().notes, ElementsAre(HasSubstr("hit: ")));
  }
}

TEST_F(CachedDataset, AnEntryOfOtherRowsIsNotTaken) {
  load();
  const std::string file = entry_file(), whole = read_file(file);
  const DatasetOptions first = rows_;
  rows_ = {dir_.write("others.jsonl", completions(4)), "completion", {}};
  options_.cache_dir = dir_ / "other";
  load();
  for (const fs::directory_entry& entry : fs::directory_iterator(dir_ / "other"))
    fs::copy_file(entry.path() / "examples", file, fs::copy_options::overwrite_existing);
  rows_ = first;
  options_.cache_dir = dir_ / "cache";
  const LoadedDataset again = load();
  EXPECT_THAT(again.notes, ElementsAre(HasSubstr("is of other rows"), HasSubstr("made: ")));
  EXPECT_EQ(read_file(file), whole);
}

TEST_F(CachedDataset, TwoWhoMakeTheSameEntryDoNotHurtEachOther) {
  const LoadedDataset first = load();
  const std::string file = entry_file(), whole = read_file(file);
  const std::string entry = fs::path(file).parent_path().string();
  // Another process is at it, and this one makes the entry meanwhile.
  io::AtomicDirectory other(entry, io::AtomicDirectory::Existing::kReplace);
  const std::string half = (fs::path(other.path()) / "examples").string();
  std::ofstream(half, std::ios::binary) << whole.substr(0, 100);
  fs::remove_all(entry);
  const LoadedDataset second = load();
  EXPECT_THAT(second.notes, ElementsAre(HasSubstr("made: ")));
  EXPECT_EQ(read_file(half), whole.substr(0, 100));
  std::ofstream(half, std::ios::binary) << whole;
  other.commit();
  EXPECT_THAT(load().notes, ElementsAre(HasSubstr("hit: ")));
  for (const LoadedDataset* loaded : {&first, &second}) {
    loaded->examples.drop_pages();  // what was mapped is still there
    expect_rows(*loaded);
  }
}

TEST_F(CachedDataset, WhatAKillLeftOfRowsThatNobodyAsksForAgainIsRemoved) {
  const std::string hash(32, 'a'), dead = hash + ".partial-0123456789abcdef";
  dir_.write("cache/" + dead + "/examples", "half");
  dir_.write("cache/mine.partial-0123456789abcdef/examples", "of another program");
  io::AtomicDirectory living(dir_ / ("cache/" + std::string(32, 'b')));
  load();
  EXPECT_FALSE(fs::exists(dir_ / ("cache/" + dead)));
  EXPECT_TRUE(fs::exists(dir_ / "cache/mine.partial-0123456789abcdef"));
  EXPECT_TRUE(fs::exists(living.path()));
}

TEST_F(CachedDataset, WhatAKillLeftIsRemoved) {
  load();
  const fs::path entry = fs::path(entry_file()).parent_path();
  fs::rename(entry, entry.string() + ".partial-0123456789abcdef");
  EXPECT_THAT(load().notes, ElementsAre(HasSubstr("made: ")));
  EXPECT_EQ(fs::path(entry_file()).parent_path(), entry);
}

TEST_F(CachedDataset, RowsThatAreWrongLeaveNothingAndAreToldAsWithout) {
  dir_.write("rows.jsonl", "{}\n" + completions(3) + "{\"prompt\": 1}\n");
  std::string told;
  try {
    load();
  } catch (const FormatError& error) {
    told = error.what();
  }
  EXPECT_THAT(told,
              AllOf(HasSubstr("rows.jsonl:1: "), HasSubstr("\n" + dir_.path() + "/rows.jsonl:5: "),
                    HasSubstr("2 of the 5 rows")));
  EXPECT_TRUE(fs::is_empty(dir_ / "cache"));
  rows_.path = dir_ / "absent.jsonl";
  EXPECT_THROW(load(), Error);
}

TEST_F(CachedDataset, FalseAndSmallFilesLeaveNothingOnDisk) {
  for (const char* cache : {"false", "auto"}) {
    options_.cache = cache;
    const LoadedDataset loaded = load();
    EXPECT_THAT(loaded.notes, IsEmpty());
    expect_rows(loaded);
    EXPECT_FALSE(fs::exists(dir_ / "cache"));
  }
}

TEST_F(CachedDataset, AutoTakesTheDiskForLargeFilesAndDoesWithoutIfItRefuses) {
  std::ofstream(rows_.path, std::ios::app) << std::string(kLargeDataset, ' ');
  rows_.max_rows = 20;
  options_.cache = "auto";
  EXPECT_THAT(load().notes, ElementsAre(HasSubstr("made: ")));
  options_.cache_dir = dir_.write("a-file", "") + "/below";
  const LoadedDataset loaded = load();
  EXPECT_THAT(loaded.notes, ElementsAre(AllOf(HasSubstr("a-file"), HasSubstr("in memory"))));
  expect_rows(loaded);
  options_.cache = "true";
  try {
    load();
    ADD_FAILURE() << "the disk did not refuse";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("a-file"), HasSubstr("data.cache_dir"),
                                    HasSubstr("data.cache: false")));
  }
}

TEST_F(CachedDataset, RowsWithTodaysDateAreNotKept) {
  const std::string chat =
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})";
  options_.sequence_length = 256;
  rows_ = {dir_.write("chat.jsonl", chat + "\n" + chat + "\n"), "chat", {}};
  for (const char* date :
       {"{{ strftime_now('%Y') }}", "{% set date_string = strftime_now('%Y') %}{{ date_string }}",
        "{% set now = strftime_now %}{% if date_string %}{{ now('%Y') }}"
        "{% endif %}"}) {
    const ChatTemplate dated(date + std::string(kChatMl));
    const LoadedDataset loaded = load_dataset(rows_, 3, options_, tokenizer_, &dated);
    EXPECT_THAT(loaded.notes, ElementsAre(HasSubstr("today's date"))) << date;
    EXPECT_EQ(loaded.examples.size(), 2u) << date;
    EXPECT_TRUE(fs::is_empty(dir_ / "cache")) << date;
    EXPECT_FALSE(cached_report(rows_, options_, tokenizer_, &dated)) << date;
    DataOptions in_a_run = options_;
    in_a_run.train = {rows_};
    EXPECT_THAT(prepare_datasets(in_a_run, tokenizer_, &dated, 1).warnings,
                Contains(HasSubstr("today's date")))
        << date;
  }
  // As Llama 3's template has it, which asks for the date only where nobody gives one.
  const ChatTemplate undated(
      "{% if not date_string is defined %}{% set date_string = "
      "strftime_now('%d %b %Y') %}{% endif %}{{ date_string }}" +
      std::string(kChatMl));
  EXPECT_THAT(load_dataset(rows_, 3, options_, tokenizer_, &undated).notes,
              ElementsAre(HasSubstr("made: ")));
  EXPECT_TRUE(cached_report(rows_, options_, tokenizer_, &undated));
}

TEST_F(CachedDataset, TheUsualPlaceIsTheUsersCache) {
  const auto set = [](const char* name, const char* value) {
    value == nullptr ? unsetenv(name) : setenv(name, value, 1);
  };
  options_.cache_dir = "";
  const char* home = std::getenv("HOME");
  const std::string saved = home == nullptr ? "" : home;
  set("HOME", "/home/someone");
  set("XDG_CACHE_HOME", "/big/cache");
  EXPECT_EQ(cache_directory(options_), "/big/cache/qlora/tokenized");
  set("XDG_CACHE_HOME", "relative/cache");  // which the specification has programs ignore
  EXPECT_EQ(cache_directory(options_), "/home/someone/.cache/qlora/tokenized");
  set("XDG_CACHE_HOME", nullptr);
  EXPECT_EQ(cache_directory(options_), "/home/someone/.cache/qlora/tokenized");
  set("HOME", "someone");
  EXPECT_EQ(cache_directory(options_), "");
  set("HOME", nullptr);
  EXPECT_EQ(cache_directory(options_), "");
  if (home != nullptr) set("HOME", saved.c_str());
  options_.cache_dir = "/mine";
  EXPECT_EQ(cache_directory(options_), "/mine");
}

// Changes the rows' file when the first of them is encoded.
class ChangingTokenizer : public ByteTokenizer {
 public:
  explicit ChangingTokenizer(std::string path) : path_(std::move(path)) {}
  std::vector<TokenId> encode(std::string_view text, bool add_special_tokens) const override {
    if (!changed_) std::ofstream(path_) << completions(1);
    changed_ = true;
    return ByteTokenizer::encode(text, add_special_tokens);
  }

 private:
  std::string path_;
  mutable bool changed_ = false;
};

TEST_F(CachedDataset, RowsThatChangeWhileTheyAreReadAreToldOnDiskAndInMemory) {
  for (const char* cache : {"true", "false"}) {
    std::ofstream(rows_.path) << completions(20);
    options_.cache = cache;
    const ChangingTokenizer tokenizer(rows_.path);
    EXPECT_THAT(load_dataset(rows_, 3, options_, tokenizer, nullptr).notes,
                Contains(HasSubstr("rows.jsonl changed while it was read")));
  }
}

// What two epochs deal out.
std::vector<TokenId> dealt(const DataOptions& options, const PreparedData& data,
                           std::vector<int64_t> examples_of_source = {}) {
  Loader loader(data.train, {.sequence_length = options.sequence_length,
                             .micro_batch_size = 2,
                             .seed = 5,
                             .examples_of_source = std::move(examples_of_source)});
  std::vector<TokenId> all;
  while (loader.position().epoch < 2)
    for (const MicroBatch& batch : loader.next().micro_batches) {
      all.insert(all.end(), batch.tokens.begin(), batch.tokens.end());
      all.insert(all.end(), batch.targets.begin(), batch.targets.end());
    }
  return all;
}

TEST_F(CachedDataset, OrderAndBitsAreThoseOfRowsInMemory) {
  DatasetOptions more = {dir_.write("more.jsonl", completions(70, "q")), "completion", {}};
  more.min_tokens = 5;
  DataOptions options = options_;
  options.train = {rows_, more};
  options.deduplicate = true;
  options.eval_fraction = 0.2;
  DataOptions plain = options;
  plain.cache = "false";
  const PreparedData expected = prepare_datasets(plain, tokenizer_, nullptr, 1);
  EXPECT_THAT(expected.cache_notes, IsEmpty());
  for (int time = 0; time < 2; ++time) {
    const PreparedData data = prepare_datasets(options, tokenizer_, nullptr, 1);
    EXPECT_EQ(data.cache_notes.size(), 2u);
    EXPECT_EQ(data.fingerprint(), expected.fingerprint());
    EXPECT_EQ(examples_fingerprint(data.eval), examples_fingerprint(expected.eval));
    EXPECT_EQ(data.warnings, expected.warnings);
    for (size_t i = 0; i < 2; ++i)
      EXPECT_EQ(to_json(data.train_reports[i]), to_json(expected.train_reports[i]));
    EXPECT_EQ(dealt(options, data), dealt(plain, expected));
    EXPECT_EQ(dealt(options, data, {7, 9}), dealt(plain, expected, {7, 9}));
  }
}

}  // namespace
}  // namespace qlora::data
