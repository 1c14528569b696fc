// Scalars and texts for TensorBoard: an event file of TFRecords, each a serialized
// tensorflow.Event.
//
//   record = length u64, masked crc32c(length) u32, event, masked crc32c(event) u32
//   masked(c) = rotate_right(c, 15) + 0xa282ead8
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "io/append_file.h"

namespace qlora::trainer {

class TensorboardLog {
 public:
  // A new events.out.tfevents.* file in `directory`; TensorBoard reads all files of a run together,
  // and forgets what earlier ones hold of steps after `last_step`, which are run again. IoError if
  // it cannot be written.
  TensorboardLog(const std::string& directory, int64_t last_step);
  void write(int64_t step, const std::vector<std::pair<std::string, double>>& scalars);
  // `markdown` as TensorBoard's text plugin shows it.
  void write_text(int64_t step, const std::string& tag, const std::string& markdown);

 private:
  void write_summary(int64_t step, const std::string& summary);
  void write_record(const std::string& event);
  io::AppendFile file_;
};

}  // namespace qlora::trainer
