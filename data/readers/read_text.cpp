// Rows of plain text, as for further pre-training.
#include "base/error.h"
#include "data/readers/reader.h"

namespace qlora::data {

Record read_text(const Row& row, const ReaderOptions&) {
  PlainText record{row.text("text")};
  if (record.text.empty()) {
    fail<FormatError>("the field '{}' is empty; remove the row", row.file_field("text"));
  }
  return record;
}

}  // namespace qlora::data
