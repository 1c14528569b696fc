// Formats of other tools that are read and trained on, and that nothing here writes.
#pragma once

#include <string>
#include <vector>

namespace qlora::quant {

struct ReadOnlyFormat {
  std::string method;  // quant_method in a config.json: "aqlm"
  std::string name;    // StoredFormat::name(), or "MXFP4": "AQLM"
  std::string reason;  // why it is not written, and what is

  // "AQLM is read, not written: its codebooks cannot hold ..."
  std::string sentence() const;
};

const std::vector<ReadOnlyFormat>& read_only_formats();
// By method or name; null: no such format.
const ReadOnlyFormat* find_read_only_format(const std::string& method_or_name);

}  // namespace qlora::quant
