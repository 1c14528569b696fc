// Turns -> tokens and mask: which tokens a model is trained to produce, found from texts alone.
//
// A turn is a prompt (what generation is given), and the same text with the answer behind it.
// Nothing searches for role markers: the answer is what the whole has beyond the prompt, up to and
// including its end-of-turn token. White space or a closing EOS that a template writes behind the
// end-of-turn token is context, not answer.
//
// Token boundaries. The tokens in front of an answer are always those of encode(prompt), since that
// is what generation feeds. Where encode(whole) begins with them, the example is encode(whole).
// Where a tokenizer would merge the prompt's end with the answer's beginning, the example is
// encode(prompt) followed by the answer's own tokens.
//
// Several turns of one conversation share an example as long as the longest text contains each of
// them unchanged, prompt included. Templates that rewrite earlier turns (Qwen 3 drops their
// thinking) would otherwise train answers behind a context that generation never shows; such a turn
// gets an example of its own, ending with it, in which only the turns that still stand there
// unchanged are trained. So every answer is trained exactly once, in the context it is asked for
// in.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/example.h"
#include "data/prompt_encoder.h"
#include "data/shared_text.h"

namespace qlora::data {

struct Turn {
  std::shared_ptr<const std::string> base;  // what the turns of a conversation share
  SharedText text;                          // the whole, over base
  size_t prompt_size = 0;                   // the prompt is what the whole begins with
  size_t end = 0;                           // of the trained text in the whole
  TokenId end_of_turn =
      -1;  // the control token that `end` stands behind; -1: the template writes none

  std::string prompt() const { return whole().substr(0, prompt_size); }
  std::string whole() const { return text.over(*base); }
  // The trained text without its end-of-turn token.
  std::string answer(const Tokenizer& tokenizer) const;
};

// Finds end and end_of_turn. Error if `whole` does not begin with `prompt`.
Turn make_turn(const std::string& prompt, std::string whole, const PromptEncoder& encoder);
Turn make_turn(std::shared_ptr<const std::string> base, SharedText whole, size_t prompt_size,
               const PromptEncoder& encoder);

// At least one example; the row and source are left to the caller. Turns stand in the order of the
// conversation.
std::vector<Example> tokenize_turns(const std::vector<Turn>& turns, const PromptEncoder& encoder);

}  // namespace qlora::data
