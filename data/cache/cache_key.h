// By what the tokenized rows of a dataset are found again on disk.
#pragma once

#include <string>

#include "data/chat_template.h"
#include "data/embedded_tokens.h"
#include "data/example.h"
#include "data/needed_rows.h"
#include "data/tokenizer.h"

namespace qlora::data {

// To be raised whenever the same rows become other examples, or another report, than in the version
// before.
constexpr int kTokenizationVersion = 6;

// Everything that decides the examples of a dataset, as JSON in one line: kTokenizationVersion; of
// each of its files path, size, time of the last change and a hash of both ends; how they are read;
// template and tokenizer; what of the options and the model shapes an example. What is decided
// between examples (data.deduplicate, eval_fraction, weights, order, packing) is none of it, but
// where `needed` rows alone are read: then it says what is needed.
// ConfigError if the path leads to no file, IoError if one cannot be read.
std::string cache_key(const DatasetOptions& dataset, const DataOptions& options,
                      const Tokenizer& tokenizer, const ChatTemplate* chat_template,
                      const ModelTokens& model, const NeededRows* needed = nullptr);

}  // namespace qlora::data
