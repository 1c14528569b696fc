// Examples as a person or a program can check them: what the model is trained to write stands out
// from what it only reads.
#pragma once

#include <string>
#include <vector>

#include "data/examples.h"
#include "data/tokenizer.h"

namespace qlora::data {

// A piece of an example's text that is trained throughout or not at all. Control characters other
// than newline and tab are written out (\x1b).
struct MaskedSpan {
  std::string text;
  bool trained = false;
};

// The decoded tokens in order; neighbours differ in `trained`.
std::vector<MaskedSpan> masked_spans(const ExampleView& example, const Tokenizer& tokenizer);
// What the encoder reads, likewise written out; empty for a model without one.
std::string encoded_text(const ExampleView& example, const Tokenizer& tokenizer);

// The decoded text. With colour, trained text is green and the rest grey (ANSI); without, trained
// runs stand in ⟦ ⟧. Control characters are written out as in MaskedSpan, so that no row can talk
// to the terminal.
std::string masked_text(const ExampleView& example, const Tokenizer& tokenizer, bool colour);

// One line: {"source", "row", "tokens": [...], "supervised": [...], "num_supervised"}; of a pair
// also "side", chosen or rejected.
std::string example_json(const ExampleView& example);

}  // namespace qlora::data
