// A text of which a chat template says itself what is to be trained -> tokens and mask.
#pragma once

#include <string_view>
#include <vector>

#include "data/example.h"
#include "data/prompt_encoder.h"
#include "data/shared_text.h"

namespace qlora::data {

// The text's ids (PromptEncoder::encode), of which every token is supervised that has a byte in one
// of the spans: the mask that transformers gives as return_assistant_tokens_mask. The row and
// source are left to the caller.
Example tokenize_marked(std::string_view text, const std::vector<TextSpan>& spans,
                        const PromptEncoder& encoder);

}  // namespace qlora::data
