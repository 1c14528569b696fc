// What `qlora inspect data RECIPE` prints: rows with their mask, and the numbers of each dataset.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "data/dataset_report.h"
#include "data/examples.h"
#include "data/prepare.h"
#include "data/tokenizer.h"

namespace qlora::cli {

struct InspectDataOptions {
  int64_t num_rows = 3;  // examples shown of each dataset; -1: all
  bool colour = false;
  bool json = false;  // one object a line: reports (with "report"), then examples
};

// A head line (dataset, row, tokens, supervised share) and the text with its mask.
void print_example(std::FILE* file, const data::ExampleView& example,
                   const data::Tokenizer& tokenizer, bool colour);
void print_report(std::FILE* file, const data::DatasetReport& report);

// Reports, warnings, unless as JSON what the datasets' weights make of an epoch (`mixture`, lines),
// and the first examples of each dataset of training, then of evaluation.
void print_data(std::FILE* file, const data::PreparedData& data, const std::string& mixture,
                const data::Tokenizer& tokenizer, const InspectDataOptions& options);

}  // namespace qlora::cli
