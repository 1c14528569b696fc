// Rows of prompt and completion: the prompt is given as it stands, with the data set's separator
// behind it, and the completion is trained.
#include "base/error.h"
#include "data/readers/reader.h"

namespace qlora::data {

Record read_completion(const Row& row, const ReaderOptions&) {
  PromptCompletion record{row.text("prompt") + row.dataset().separator, row.text("completion")};
  if (record.completion.empty()) {
    fail<FormatError>(
        "the field '{}' is empty: there is nothing to train on; fill it in or remove the row",
        row.file_field("completion"));
  }
  return record;
}

}  // namespace qlora::data
