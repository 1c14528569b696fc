#include "data/cache/cache_key.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <set>

#include "base/error.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {
namespace fs = std::filesystem;

using test::TempDir;

struct OtherTokenizer : test::ByteTokenizer {
  std::string fingerprint() const override { return "other bytes"; }
};

// What a key is made of.
struct Parts {
  DatasetOptions dataset;
  DataOptions options;
  const Tokenizer* tokenizer;
  const ChatTemplate* chat_template = nullptr;
  ModelTokens model = {};

  std::string key() const { return cache_key(dataset, options, *tokenizer, chat_template, model); }
};

TEST(CacheKey, EverythingThatShapesAnExampleIsInIt) {
  const TempDir dir;
  const test::ByteTokenizer tokenizer;
  const OtherTokenizer other_tokenizer;
  const ChatTemplate chat_template("a"), other_template("b"), with_tools("a", "t", "c"),
      with_other_tools("a", "t", "d");
  Parts parts{{dir.write("a.jsonl", "{}\n"), "completion", {}}, {}, &tokenizer};
  const std::vector<std::function<void(Parts&)>> changes = {
      [](Parts&) {},
      [&](Parts& p) { p.dataset.path = dir.write("b.jsonl", "{}\n"); },
      [](Parts& p) { p.dataset.format = "input_output"; },
      [](Parts& p) {
        p.dataset.fields = {{"prompt", "question"}};
      },
      [](Parts& p) { p.dataset.separator = "\n"; },
      [](Parts& p) { p.dataset.max_rows = 3; },
      [](Parts& p) { p.dataset.min_tokens = 3; },
      [](Parts& p) { p.dataset.max_tokens = 3; },
      [](Parts& p) { p.dataset.system = "Be brief."; },
      [](Parts& p) { p.options.sequence_length = 77; },
      [](Parts& p) { p.options.on_overlength = OnOverlength::kDrop; },
      [](Parts& p) { p.options.train_on = TrainOn::kAll; },
      [](Parts& p) { p.options.prompt_style = "alpaca"; },
      [&](Parts& p) { p.tokenizer = &other_tokenizer; },
      [&](Parts& p) { p.chat_template = &chat_template; },
      [&](Parts& p) { p.chat_template = &other_template; },
      [&](Parts& p) { p.chat_template = &with_tools; },
      [&](Parts& p) { p.chat_template = &with_other_tools; },
      [](Parts& p) { p.model.embedding_rows = 99; },
      [](Parts& p) {
        p.model.decoder = DecoderTokens{1, 2};
      },
      [](Parts& p) {
        p.model.decoder = DecoderTokens{1, 3};
      },
  };
  std::set<std::string> keys;
  for (const auto& change : changes) {
    Parts changed = parts;
    change(changed);
    EXPECT_EQ(changed.key(), changed.key());
    keys.insert(changed.key());
  }
  EXPECT_EQ(keys.size(), changes.size());
}

TEST(CacheKey, WhatIsDecidedBetweenExamplesIsNotInIt) {
  const TempDir dir;
  const test::ByteTokenizer tokenizer;
  const Parts parts{{dir.write("a.jsonl", "{}\n"), "completion", {}}, {}, &tokenizer};
  Parts changed = parts;
  changed.dataset.weight = 2;
  changed.options.mix_by = "tokens";
  changed.options.deduplicate = true;
  changed.options.eval_fraction = 0.5;
  changed.options.packing = changed.options.shuffle = false;
  changed.options.cache = "true";
  changed.options.cache_dir = dir.path();
  EXPECT_EQ(changed.key(), parts.key());
}

TEST(CacheKey, WhereTheFirstRowsAloneAreReadItSaysHowFar) {
  const TempDir dir;
  const test::ByteTokenizer tokenizer;
  const DatasetOptions rows{dir.write("a.jsonl", "{}\n"), "completion", {}};
  DataOptions options;
  options.shuffle_block = 5;
  std::set<std::string> keys;
  const auto add = [&](const NeededRows* needed) {
    keys.insert(cache_key(rows, options, tokenizer, nullptr, {}, needed));
  };
  const NeededRows first{10, 0, 1};
  add(nullptr);
  for (const NeededRows& needed : {first, NeededRows{11, 0, 1}, {10, 7, 1}, {10, 0, 2}})
    add(&needed);
  options.packing = false;
  add(&first);
  options.shuffle_block = 6;
  add(&first);
  EXPECT_EQ(keys.size(), 7u);
}

TEST(CacheKey, AFileThatChangedIsAnotherOne) {
  const TempDir dir;
  const test::ByteTokenizer tokenizer;
  const std::string path = dir / "a.jsonl";
  const Parts parts{{path, "completion", {}}, {}, &tokenizer};
  const std::string rows(300000, 'x');
  std::set<std::string> keys;
  const auto with = [&](const std::string& bytes, fs::file_time_type changed) {
    dir.write("a.jsonl", bytes);
    fs::last_write_time(path, changed);
    keys.insert(parts.key());
  };
  const auto now = fs::file_time_type::clock::now();
  with(rows, now);
  with(rows, now);
  EXPECT_EQ(keys.size(), 1u);
  with(rows, now - std::chrono::seconds(1));
  with(rows + "x", now);
  with("y" + rows.substr(1), now);
  with(rows.substr(1) + "y", now);
  EXPECT_EQ(keys.size(), 5u);
}

TEST(CacheKey, AFolderIsAllOfItsFiles) {
  const TempDir dir;
  const test::ByteTokenizer tokenizer;
  dir.write("rows/a.jsonl", "{}\n");
  const Parts parts{{dir / "rows", "completion", {}}, {}, &tokenizer};
  const std::string before = parts.key();
  dir.write("rows/b.jsonl", "{}\n");
  EXPECT_NE(parts.key(), before);
}

TEST(CacheKey, AFileThatIsMissingIsAnError) {
  const TempDir dir;
  const test::ByteTokenizer tokenizer;
  const Parts parts{{dir / "absent.jsonl", "completion", {}}, {}, &tokenizer};
  EXPECT_THROW(parts.key(), Error);
}

}  // namespace
}  // namespace qlora::data
