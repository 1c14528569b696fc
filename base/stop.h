// The wish to stop, and how work obeys it: between two units of a phase (a tensor, a row, a
// micro-batch) the work asks whether it is to go on, and leaves with an exception that says how far
// it was. Destructors on the way remove what is half made.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

namespace qlora {

// Thrown where work is left. Not an error: nothing is wrong, and no handler of errors takes it.
struct Stopped {
  std::string phase;              // "tokenizing rows.jsonl"; empty: between two phases
  int64_t done = 0, total = 0;    // units; total 0: unknown
  std::string unit;               // "rows"
  bool may_have_written = false;  // what stays: a file of the data cache

  // "tokenizing rows.jsonl, 120 of 600 rows done"
  std::string to_text() const;
  // For people: "stopped: tokenizing rows.jsonl, 120 of 600 rows done; nothing was written".
  std::string to_sentence() const;
};

// While it lives, the work of this process obeys `flag`. Of several the last one made counts.
class ObeyStop {
 public:
  explicit ObeyStop(const std::atomic<bool>& flag);
  ~ObeyStop();
  ObeyStop(const ObeyStop&) = delete;
  ObeyStop& operator=(const ObeyStop&) = delete;

 private:
  const std::atomic<bool>* before_;
};

bool stop_wanted();
// Throws Stopped if a stop is wanted.
void leave_if_stop_wanted();

}  // namespace qlora
