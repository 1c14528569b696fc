#include "cli/tokenize.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cerrno>
#include <ios>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/path_error.h"
#include "cli/standard_streams.h"
#include "data/tokenizer.h"
#include "io/json_fault.h"
#include "io/json_text.h"

namespace {

using qlora::data::TokenId;
using qlora::data::Tokenizer;

struct TokenizeOptions {
  std::string tokenizer;
  bool decode = false, jsonl = false, json = false;
  bool no_special_tokens = false, skip_special_tokens = false;
};

nlohmann::json parse_line(const std::string& line, int64_t number) {
  try {
    return qlora::io::json_from_text(line);
  } catch (const nlohmann::json::exception& error) {
    qlora::fail<qlora::FormatError>("line {} of the input is not valid JSON{}", number,
                                    qlora::io::json_fault_in("line", line, error));
  }
}

std::vector<TokenId> as_ids(const nlohmann::json& value, int64_t line) {
  std::vector<TokenId> ids;
  bool valid = value.is_array();
  for (const auto& id : value) {
    valid = valid && id.is_number_integer() && id >= 0 && id <= INT32_MAX;
    if (valid) ids.push_back(id.get<TokenId>());
  }
  if (!valid) {
    qlora::fail<qlora::FormatError>("line {} of the input must be an array of token ids", line);
  }
  return ids;
}

// A JSON string becomes an id array, or (decode) an id array a JSON string.
nlohmann::json convert(const Tokenizer& tokenizer, const nlohmann::json& value,
                       const TokenizeOptions& options, int64_t line) {
  if (options.decode) {
    const std::vector<TokenId> ids = as_ids(value, line);
    try {
      return tokenizer.decode(ids, options.skip_special_tokens);
    } catch (const qlora::FormatError& error) {
      qlora::fail<qlora::FormatError>("line {} of the input: {}", line, error.what());
    }
  }
  if (!value.is_string()) {
    qlora::fail<qlora::FormatError>("line {} of the input must be a JSON string", line);
  }
  return tokenizer.encode(value.get<std::string>(), !options.no_special_tokens);
}

[[noreturn]] void fail_on_input(int error) {
  qlora::fail_on_path(error, "standard input cannot be read");
}

std::string all_of_input() {
  try {
    return {std::istreambuf_iterator<char>(std::cin), {}};
  } catch (const std::ios_base::failure& error) {
    fail_on_input(error.code().value());
  }
}

void convert_lines(const Tokenizer& tokenizer, const TokenizeOptions& options) {
  int64_t number = 0;
  for (std::string line; std::getline(std::cin, line);) {
    const nlohmann::json value = parse_line(line, ++number);
    qlora::cli::print_now(qlora::io::json_text(convert(tokenizer, value, options, number)) + '\n');
  }
  if (std::cin.bad()) fail_on_input(errno);
}

std::vector<TokenId> parse_ids(const std::string& text) {
  std::istringstream stream(text);
  std::vector<TokenId> ids;
  for (std::string word; stream >> word;) {
    size_t used = 0;
    TokenId id = -1;
    try {
      id = std::stoi(word, &used);
    } catch (const std::exception&) {
      used = 0;
    }
    if (used != word.size() || id < 0) {
      qlora::fail<qlora::FormatError>("the input must be token ids between blanks, found '{}'",
                                      word);
    }
    ids.push_back(id);
  }
  return ids;
}

void print_ids(const Tokenizer& tokenizer, const std::vector<TokenId>& ids, bool json) {
  if (!json) {
    fmt::print("{}\n", fmt::join(ids, " "));
    return;
  }
  nlohmann::ordered_json result = {{"num_tokens", ids.size()}, {"ids", ids}};
  auto& tokens = result["tokens"] = nlohmann::ordered_json::array();
  for (const TokenId id : ids) tokens.push_back(tokenizer.id_to_token(id));
  fmt::print("{}\n", qlora::io::json_text(result, 2));
}

void run(const TokenizeOptions& options) {
  const auto tokenizer = qlora::data::load_tokenizer(options.tokenizer);
  std::ios::sync_with_stdio(false);
  if (options.jsonl) return convert_lines(*tokenizer, options);
  const std::string input = all_of_input();
  if (!options.decode) {
    return print_ids(*tokenizer, tokenizer->encode(input, !options.no_special_tokens),
                     options.json);
  }
  const std::string text = tokenizer->decode(parse_ids(input), options.skip_special_tokens);
  if (options.json) {
    fmt::print("{}\n", qlora::io::json_text(nlohmann::json{{"text", text}}, 2));
  } else {
    fmt::print("{}", text);
  }
}

}  // namespace

void add_tokenize_command(qlora::cli::Command app) {
  auto options = std::make_shared<TokenizeOptions>();
  qlora::cli::Command command =
      app.add_subcommand("tokenize", "Text on stdin to token ids on stdout, or back (--decode)");
  command
      .add_option("--model,--tokenizer", options->tokenizer,
                  "Model directory, tokenizer.json, sentencepiece .model or .gguf")
      .required();
  command.add_flag("--decode", options->decode, "Ids on stdin, text on stdout");
  command.add_flag("--jsonl", options->jsonl,
                   "One JSON value a line: strings in and id arrays out, or (--decode) back");
  command.add_flag("--json", options->json, "One JSON object, with the tokens' spellings");
  command.add_flag("--no-special-tokens", options->no_special_tokens,
                   "Leave out what the tokenizer adds itself (BOS, EOS)");
  command.add_flag("--skip-special-tokens", options->skip_special_tokens,
                   "Leave special tokens out of decoded text");
  command.callback([options] { run(*options); });
}
