#include "data/tokenizers/fingerprint.h"

#include <fmt/format.h>

#include "io/hashing.h"
#include "io/json_text.h"

namespace qlora::data {

std::string tokenizer_fingerprint(std::string_view vocabulary_file, const AddedTokens& added,
                                  const SpecialTokens& special, std::string_view chat_template,
                                  std::string_view tool_use_template, std::string_view flags) {
  io::Hasher hasher;
  // Lengths keep "ab" + "c" apart from "a" + "bc".
  const auto add = [&](std::string_view part) {
    hasher.update(fmt::format("{}:", part.size()));
    hasher.update(part);
  };
  add(vocabulary_file);
  add(chat_template);
  add(flags);
  for (const AddedToken& token : added.tokens()) {
    add(fmt::format("{} {}", token.id, io::json_text(to_json(token))));
  }
  for (const auto& role : {special.bos, special.eos, special.unk, special.pad}) {
    add(role ? fmt::format("{} {}", role->id, role->text) : "none");
  }
  for (const TokenId id : special.end_of_generation) add(fmt::format("{}", id));
  if (!tool_use_template.empty()) {
    add("tool_use");
    add(tool_use_template);
  }
  return hasher.hex();
}

}  // namespace qlora::data
