// Rows of every format, tables, tokenizer files, chat templates.
#include <array>
#include <stdexcept>

#include "base/error.h"
#include "base/utf8.h"
#include "data/cache/example_file.h"
#include "data/cache/stored_report.h"
#include "data/chat_template.h"
#include "data/prompt_encoder.h"
#include "data/readers/reader.h"
#include "data/row_source.h"
#include "data/tokenize_row.h"
#include "data/tokenizers/gguf_tokenizer.h"
#include "data/tokenizers/sentencepiece_tokenizer.h"
#include "data/tokenizers/tokenizer_files.h"
#include "data/tokenizers/tokenizer_json.h"
#include "io/hashing.h"
#include "io/json.h"
#include "io/json_text.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/fuzz/target.h"
#include "tests/support/small_vocabularies.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::fuzz {
namespace {

constexpr const char* kText = "Hello  wörld\n\t<|im_start|>12 3\xF0\x9F\x98\x80 <s></s>";

// Two ways to one answer must agree: not a refusal, a fault.
void require_same(bool same, const char* what) {
  if (!same) throw std::logic_error(what);
}

// ---- rows: the first byte chooses the format, the rest is the file

constexpr std::array kFormats = {"chat", "sharegpt",     "alpaca",    "completion",
                                 "text", "pretokenized", "preference"};

void read_rows(std::string_view bytes) {
  if (bytes.empty()) return;
  const test::ByteTokenizer tokenizer;
  static const data::ChatTemplate chat_template(data::builtin_chat_template("chatml"));
  data::DatasetOptions dataset;
  dataset.format = kFormats[static_cast<unsigned char>(bytes[0]) % kFormats.size()];
  const MemoryFile file(bytes.substr(1));
  dataset.path = file.path();
  const data::RowTokenizer rows(tokenizer, &chat_template, {});
  taken_or_refused([&] {
    data::RowSource source(dataset);
    for (std::vector<data::SourceRow> chunk = source.next(4); !chunk.empty();
         chunk = source.next(4))
      for (const data::SourceRow& row : chunk) {
        taken_or_refused([&] { rows.tokenize(row.value, dataset); });
        taken_or_refused([&] { rows.turns(row.value, dataset); });
      }
  });
}

std::vector<std::string> row_seeds() {
  const std::vector<std::pair<char, std::string>> rows = {
      {0,
       R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": "a", "weight": 1}]})"},
      {0,
       R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 12345678901234567890123}"}}]}, {"role": "tool", "tool_call_id": "1", "content": "3"}, {"role": "assistant", "content": "b"}], "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]})"},
      {1,
       R"({"system": "s", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]})"},
      {2,
       R"([{"instruction": "i", "input": "", "output": "o"}, {"instruction": "i", "input": "n", "output": "o"}])"},
      {3, R"({"prompt": "p", "completion": "c"})"},
      {4, R"({"text": "t"})"},
      {5, R"({"input_ids": [1, 2, 3], "labels": [-100, 2, 3]})"},
      {5, R"({"input_ids": [1, 2, 3], "mask": [0, 1, 1]})"},
      {6, R"({"prompt": "p", "chosen": "c", "rejected": "d"})"},
      {6, R"({"chosen": "Wie? Gut.", "rejected": "Wie? Schlecht."})"},
      {6,
       R"({"prompt": [{"role": "user", "content": "q"}], "chosen": [{"role": "assistant", "content": "a"}], "rejected": [{"role": "assistant", "content": "b"}], "tools": []})"},
      {6,
       R"({"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}})"}};
  std::vector<std::string> seeds;
  for (const auto& [format, row] : rows) seeds.push_back(std::string(1, format) + row + "\n");
  return seeds;
}

// ---- tables: the first byte chooses the delimiter and the format, the rest is the file

void read_table(std::string_view bytes) {
  if (bytes.empty()) return;
  const auto first = static_cast<unsigned char>(bytes[0]);
  data::DatasetOptions dataset;
  dataset.format = kFormats[first / 2 % kFormats.size()];
  const MemoryFile file(bytes.substr(1));
  taken_or_refused([&] {
    const auto rows =
        data::open_table_rows(io::ByteReader(file.path()), first % 2 == 0 ? ',' : '\t', dataset);
    for (data::SourceRow row; rows->next(row);) {
    }
  });
}

std::vector<std::string> table_seeds() {
  const std::vector<std::pair<char, std::string>> tables = {
      {0, "id,messages\r\n1,\"[{\"\"role\"\": \"\"user\"\"}]\"\r\n"},
      {4, "instruction,input,output\na,,\"b, \"\"c\"\"\nd\"\n\n"},
      {7, "prompt\tcompletion\na\tb \"c\"\n"},
      {8, "text\rone\rtwo\r"},
      {10, "input_ids,labels\n\"[1, 2]\",\"[-100, 2]\"\n"}};
  std::vector<std::string> seeds;
  for (const auto& [choice, table] : tables) seeds.push_back(std::string(1, choice) + table);
  return seeds;
}

// ---- tokenizers

// The ids of a text's beginnings, found from those of the whole, are those of encode().
void compare_beginnings(std::string_view text, const data::Tokenizer& tokenizer) {
  const data::PromptEncoder encoder(tokenizer);
  const data::EncodedText whole(text, encoder);
  for (size_t size = 0; size <= text.size(); ++size) {
    if (size < text.size() && is_utf8_continuation(text[size])) continue;
    const auto ids = encoder.encode(text.substr(0, size));
    const auto count = whole.num_ids_of_beginning(size);
    require_same(data::starts_with(whole.ids(), ids) ? count == ids.size() : !count,
                 "the ids of a text's beginning are not those of the text");
  }
}

void use(const data::Tokenizer& tokenizer) {
  std::vector<data::TokenId> ids;
  taken_or_refused([&] { ids = tokenizer.encode(kText, true); });
  taken_or_refused([&] { compare_beginnings(kText, tokenizer); });
  taken_or_refused([&] { tokenizer.decode(ids, true); });
  taken_or_refused([&] { tokenizer.decode(ids, false); });
  taken_or_refused([&] {
    if (!tokenizer.chat_template().empty()) data::ChatTemplate parsed(tokenizer.chat_template());
  });
}

const std::vector<std::string> kTokenizerFiles = {
    "tokenizer.json",          "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json",
    "generation_config.json",  "chat_template.jinja",
    "chat_template.json",      "config.json"};

void read_tokenizer_json(std::string_view bytes) {
  Parts parts = split_parts(bytes);
  parts.try_emplace("tokenizer.json");
  taken_or_refused([&] {
    use(*data::make_json_tokenizer({parts.begin(), parts.end()}, "model", "model/tokenizer.json"));
  });
}

std::vector<std::string> tokenizer_json_seeds() {
  std::vector<std::string> seeds;
  const test::TempDir dir;
  test::write_tiny_directory(dir.path());
  seeds.push_back(join_parts(parts_of_directory(dir.path(), kTokenizerFiles)));
  // Each kind of component, small.
  const char* normalizers =
      R"({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}, {"type": "Prepend", "prepend": "_"}, {"type": "Replace", "pattern": {"String": " "}, "content": "_"}, {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, {"type": "Strip", "strip_left": true, "strip_right": false}]})";
  const char* pre_tokenizers =
      R"({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false}, {"type": "Digits", "individual_digits": true}, {"type": "Punctuation"}, {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]})";
  const char* model =
      R"({"type": "BPE", "dropout": null, "unk_token": "u", "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": {"u": 0, "H": 1, "e": 2, "He": 3, "<0x0A>": 4}, "merges": ["H e"]})";
  const char* unigram =
      R"({"type": "Unigram", "unk_id": 0, "vocab": [["u", 0.0], ["H", -1.0], ["e", -2.5]], "byte_fallback": false})";
  const char* post =
      R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "u", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {"u": {"id": "u", "ids": [0], "tokens": ["u"]}}})";
  const char* decoders =
      R"({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "_"}, "content": " "}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})";
  const char* added =
      R"([{"id": 5, "content": "<s>", "single_word": false, "lstrip": true, "rstrip": true, "normalized": false, "special": true}])";
  for (const char* each : {model, unigram})
    for (const char* pre :
         {pre_tokenizers,
          R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "split": true})",
          "null"})
      seeds.push_back(join_parts(
          {{"tokenizer.json",
            fmt::format(
                R"({{"version": "1.0", "truncation": null, "padding": null, "added_tokens": {}, "normalizer": {}, "pre_tokenizer": {}, "post_processor": {}, "decoder": {}, "model": {}}})",
                added, normalizers, pre, post, decoders, each)}}));
  // Patterns of every construct that real ones have, and some that few have.
  for (const char* pattern :
       {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|\\s*[\\r\\n]+)",
        R"([\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{M}]+(?i:'s)?|[^\\S\\r\\n]++)",
        R"((?i)h(e)l\\1+o|\\bw[[:alpha:]&&[^x-z]]*|(?<!\\d)\\d{1,3}(?=(?:\\d{3})*\\b))",
        R"([一-龥぀-ゟ]+|[!-/:-~[\\x{80}-\\x{ff}]]|\\w*?(?>a|ab)|^.|\\Z)"})
    seeds.push_back(join_parts(
        {{"tokenizer.json",
          fmt::format(
              R"({{"added_tokens": {}, "pre_tokenizer": {{"type": "Split", "pattern": {{"Regex": "{}"}}, "behavior": "Removed", "invert": true}}, "model": {}}})",
              added, pattern, model)}}));
  return seeds;
}

void read_sentencepiece(std::string_view bytes) {
  Parts parts = split_parts(bytes);
  parts.try_emplace("tokenizer.model");
  taken_or_refused([&] {
    use(*data::make_sentencepiece_tokenizer({parts.begin(), parts.end()}, "model",
                                            "model/tokenizer.model"));
  });
}

std::vector<std::string> sentencepiece_seeds() {
  const test::TempDir dir;
  const data::TokenizerFiles files =
      data::tokenizer_files_of(test::gguf_of_metadata(dir, test::sentencepiece_metadata()));
  return {join_parts({files.begin(), files.end()})};
}

void read_gguf_tokenizer(std::string_view bytes) {
  const MemoryFile file(bytes);
  taken_or_refused([&] { use(*data::make_gguf_tokenizer(io::GgufFile(file.path()))); });
}

std::vector<std::string> gguf_tokenizer_seeds() {
  std::vector<std::string> seeds;
  for (const auto& metadata :
       {test::byte_level_metadata(), test::sentencepiece_metadata(), test::unigram_metadata()}) {
    const test::TempDir dir;
    seeds.push_back(test::read_file(test::gguf_of_metadata(dir, metadata).path()));
  }
  return seeds;
}

// ---- templates

// The texts of a conversation's beginnings, found together, are those that are rendered alone.
void compare_beginnings(const data::ChatTemplate& chat_template, const data::Json& messages,
                        const data::Json& context, bool prompt) {
  std::vector<size_t> lengths;
  for (size_t length = 1; length <= messages.size(); ++length) lengths.push_back(length);
  const auto found = chat_template.render_prefixes(messages, context, prompt, lengths);
  if (chat_template.has_read_clock()) return;  // which may go on between the two
  for (const auto& [length, text] : found.texts) {
    const data::Json first(messages.begin(), messages.begin() + static_cast<ptrdiff_t>(length));
    std::string alone;
    try {
      alone = chat_template.render(first, context, prompt);
    } catch (const FormatError& error) {
      throw std::logic_error(fmt::format("{} messages fail alone: {}", length, error.what()));
    }
    require_same(text.over(found.base) == alone,
                 "a beginning's text is not what is rendered alone");
  }
}

void render_template(std::string_view bytes) {
  using data::Json;
  static const Json messages = {
      {{"role", "system"}, {"content", "be kind"}},
      {{"role", "user"}, {"content", "Zählt 3 + 4?"}},
      {{"role", "assistant"},
       {"content", "<think>7</think>7"},
       {"tool_calls", Json::array({{{"function", {{"name", "f"}, {"arguments", {{"x", 1.5}}}}}}})}},
      {{"role", "tool"}, {"content", ""}},
      {{"role", "assistant"}, {"content", "7"}}};
  static const Json context = {{"bos_token", "<s>"},
                               {"eos_token", "</s>"},
                               {"enable_thinking", false},
                               {"tools", {{{"type", "function"}}}}};
  taken_or_refused([&] {
    const data::ChatTemplate parsed{std::string(bytes)};
    for (const bool prompt : {false, true}) {
      taken_or_refused([&] { parsed.render(messages, context, prompt); });
      compare_beginnings(parsed, messages, context, prompt);
    }
  });
}

std::vector<std::string> template_seeds() {
  std::vector<std::string> seeds;
  for (const char* name :
       {"chatml", "llama-2", "llama-3", "alpaca", "vicuna", "zephyr", "mistral", "gemma", "phi-3"})
    seeds.push_back(data::builtin_chat_template(name));
  for (const char* text :
       {"{% macro f(a, b='x', *c, **d) -%}{{ a ~ b }}{{ varargs }}{%- endmacro %}{{ f(1, b=2) }}{% "
        "call f(3) %}in{% endcall %}",
        "{% set ns = namespace(n=0) %}{% for m in messages if m.role != 'tool' %}{% set ns.n = "
        "ns.n + loop.index0 %}{% else %}none{% endfor %}{{ ns.n // 2 ** 3 % 5 }}",
        "{{ messages[1:][::-1] | map(attribute='role') | join(', ') | upper | replace('A', 'b') | "
        "trim }}{{ '%s-%03d' % ('a', 7) }}{{ '{:>5}'.format(3) }}",
        "{% for k, v in messages[2].tool_calls[0].function.arguments | items %}{{ k }}={{ v | "
        "tojson(indent=2) }}{% endfor %}{{ raise_exception('no') if false }}",
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ [3, 1, 2] | "
        "sort(reverse=true) | first }}{{ range(3) | sum }}{{ dict(a=1).get('b', none) is none }}",
        "{%- filter indent(4) %}a\nb{% endfilter %}{{ 'a b'.split() }}{{ 'x' in 'xyz' and not 'q' "
        "is defined }}{# c #}{% raw %}{{ }}{% endraw %}{{ strftime_now('%Y') }}"})
    seeds.emplace_back(text);
  return seeds;
}

// ---- files of the cache, with the hash that their bytes have

void read_example_file(std::string_view bytes) {
  constexpr size_t kBehindHashed = 48;
  std::string hashed(bytes);
  if (hashed.size() > kBehindHashed) {
    const std::string hash = io::hash_text(bytes.substr(0, bytes.size() - kBehindHashed));
    hashed.replace(hashed.size() - kBehindHashed, hash.size(), hash);
  }
  const MemoryFile file(hashed);
  taken_or_refused([&] {
    const auto examples = data::ExampleFile::open(file.path(), 0);
    data::examples_fingerprint(data::Examples(examples));
    const nlohmann::json text = io::parse_json(examples->text(), "text");
    data::report_from(io::JsonNode(text, "text"));
  });
}

std::vector<std::string> example_file_seeds() {
  data::DatasetReport report;
  report.end_of_turn_ids = {2};
  report.unread_keys = {{"id", ""}};
  report.absent_fields = {{"input", "contxt"}};
  const test::TempDir dir;
  data::ExampleFileWriter file(dir / "examples");
  for (const data::Example& example :
       std::vector<data::Example>{{{1, 2, 3}, {0, 1, 1}, 0},
                                  {{1, 9}, {0, 1}, 1, 0, {}, data::Side::kChosen},
                                  {{1, 8}, {0, 1}, 1, 0, {}, data::Side::kRejected},
                                  {{0, 4, 5}, {0, 1, 1}, 2, 0, {7, 1}}})
    file.add(example);
  file.finish(io::json_text(data::stored_report(report)));
  return {test::read_file(dir / "examples")};
}

}  // namespace

std::vector<Target> data_targets() {
  return {{"rows",
           read_rows,
           row_seeds,
           {"\"messages\"",
            "\"role\"",
            "\"content\"",
            "\"assistant\"",
            "\"user\"",
            "\"tool_calls\"",
            "\"weight\"",
            "\"from\"",
            "\"value\"",
            "\"gpt\"",
            "\"input_ids\"",
            "\"labels\"",
            "null",
            "[]",
            "{}",
            "-1",
            "1e99",
            "\"train\"",
            "\"loss_mask\"",
            "\"type\"",
            "\"text\"",
            "\"chosen\"",
            "\"rejected\""}},
          {"table",
           read_table,
           table_seeds,
           {"\"", "\"\"", ",", "\t", "\r\n", "\n", "\"\n\"", "messages", "text", "[]"}},
          {"tokenizer_json",
           read_tokenizer_json,
           tokenizer_json_seeds,
           {"\"type\"",
            "BPE",
            "Unigram",
            "WordPiece",
            "ByteLevel",
            "Metaspace",
            "Split",
            "\"Regex\"",
            "\\\\p{L}",
            "(?i:",
            "\"vocab\"",
            "\"merges\"",
            "null",
            "\"id\"",
            "\"lstrip\"",
            "\"byte_fallback\"",
            "=== tokenizer_config.json\n",
            "\"added_tokens_decoder\"",
            "\"chat_template\"",
            "\"eos_token\""}},
          {"sentencepiece",
           read_sentencepiece,
           sentencepiece_seeds,
           {"=== tokenizer_config.json\n", "\"legacy\"", "\"add_bos_token\""}},
          {"gguf_tokenizer",
           read_gguf_tokenizer,
           gguf_tokenizer_seeds,
           {"tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens",
            "tokenizer.ggml.token_type", "tokenizer.ggml.scores", "tokenizer.ggml.merges",
            "tokenizer.chat_template", "llama", "gpt2"}},
          {"template",
           render_template,
           template_seeds,
           {"{{",
            "}}",
            "{%",
            "%}",
            "{#",
            "#}",
            "-%}",
            "{% for ",
            "{% endfor %}",
            "{% if ",
            "{% elif ",
            "{% else %}",
            "{% endif %}",
            "{% set ",
            "{% endset %}",
            "{% macro ",
            "{% generation %}",
            "loop.",
            "namespace(",
            "messages",
            "tojson",
            "|",
            "is defined",
            "not in",
            "**",
            "//",
            "[::",
            "range(",
            "'%",
            ".format("}},
          {"example_file",
           read_example_file,
           example_file_seeds,
           {"qlora examples 1", "\"end_of_turn_ids\"", "\"unread_keys\"", "\"rows\""}}};
}

}  // namespace qlora::fuzz
