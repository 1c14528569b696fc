// Rows of prompt and completion, or input and output: the prompt is given as it stands, with the
// data set's separator behind it, and the completion is trained.
#include "base/error.h"
#include "data/readers/reader.h"

namespace qlora::data {
namespace {

Record read_pair(const Row& row, const char* prompt, const char* completion) {
  PromptCompletion record{row.text(prompt) + row.dataset().separator, row.text(completion)};
  if (record.completion.empty()) {
    fail<FormatError>(
        "the field '{}' is empty: there is nothing to train on; fill it in or remove the row",
        row.file_field(completion));
  }
  return record;
}

}  // namespace

Record read_completion(const Row& row, const ReaderOptions&) {
  return read_pair(row, "prompt", "completion");
}

Record read_input_output(const Row& row, const ReaderOptions&) {
  return read_pair(row, "input", "output");
}

}  // namespace qlora::data
