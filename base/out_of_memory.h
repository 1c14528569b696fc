// What a user is told when memory is refused, by whatever library.
#pragma once

#include <cstddef>
#include <new>
#include <optional>
#include <string>
#include <string_view>

#include "base/process_limit.h"

namespace qlora {

// A bad_alloc that says how much was asked for.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(size_t bytes);
  const char* what() const noexcept override { return words_.c_str(); }

 private:
  std::string words_;
};

struct MemoryRefusal {
  bool on_gpu = false;
  std::string asked, free;                 // "17.2 GB", "2.00 GiB"; empty where that is not known
  std::optional<ProcessLimit> limit = {};  // of the process that was refused
};

// What an exception says of refused memory: std::bad_alloc, OutOfMemory, and what torch's
// allocators throw, which is a c10::Error on the CPU and a c10::OutOfMemoryError on a GPU. Nothing
// if its words are about something else.
std::optional<MemoryRefusal> memory_refusal(std::string_view words);

// How much was asked for, in which phase (empty: unknown), and what to change.
std::string to_text(const MemoryRefusal& refusal, const std::string& phase);

}  // namespace qlora
