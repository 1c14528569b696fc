// Examples as a person or a program can check them: what the model is trained to write stands out
// from what it only reads.
#pragma once

#include <string>

#include "data/example.h"
#include "data/tokenizer.h"

namespace qlora::data {

// The decoded text. With colour, trained text is green and the rest grey (ANSI); without, trained
// runs stand in ⟦ ⟧. Control characters other than newline and tab are written out (\x1b), so that
// no row can talk to the terminal.
std::string masked_text(const Example& example, const Tokenizer& tokenizer, bool colour);

// One line: {"source", "row", "tokens": [...], "supervised": [...], "num_supervised"}; of a pair
// also "side", chosen or rejected.
std::string example_json(const Example& example);

}  // namespace qlora::data
