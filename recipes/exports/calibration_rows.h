// The rows that a quantization is calibrated on, as sequences to run a model on, and those by which
// it is judged.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/example.h"
#include "data/tokenizer.h"
#include "model/causal_lm.h"

namespace qlora::recipes {

struct CalibrationOptions {
  CalibrationOptions() { data.format = "text"; }

  data::DatasetOptions data;
  int64_t samples = 128;           // sequences, if there are rows for so many
  int64_t sequence_length = 2048;  // tokens of each, at most; less if the model has less positions
  // What the process may take of host memory. Where the sequences' activations do not fit into it
  // beside a block's work (gptq_memory.h), they lie in a file beside the output. 0: they may take
  // half of what is free.
  int64_t max_memory_bytes = 0;

  // Throws ConfigError naming the option.
  void validate() const;
};

// What a quantized model says of the rows that it was calibrated on.
struct CalibrationFacts {
  std::string name;  // of the file
  std::string hash;  // of the tokens: data::examples_fingerprint()
  int64_t sequences = 0, tokens = 0;
};

struct CalibrationRows {
  std::vector<model::ForwardInput> sequences;  // several rows each, that do not see each other
  CalibrationFacts facts;

  std::vector<int64_t> lengths() const;  // tokens of each sequence
};

// Rows of any format, all of whose tokens count; longer ones are cut into pieces. Which rows of a
// large file are taken depends on nothing but their number. ConfigError if there are none, and
// errors of data::read_dataset().
CalibrationRows read_calibration_rows(const CalibrationOptions& options,
                                      const data::Tokenizer& tokenizer,
                                      const model::Architecture& architecture);

// Rows of any format but pairs, to predict the tokens that a training would train; longer ones are
// cut into pieces of `sequence_length` tokens, or as many as the model has positions for.
// ConfigError if there are none, and errors of data::read_dataset().
std::vector<data::Example> read_held_out_rows(const data::DatasetOptions& rows,
                                              int64_t sequence_length,
                                              const data::Tokenizer& tokenizer,
                                              const model::Architecture& architecture);

}  // namespace qlora::recipes
