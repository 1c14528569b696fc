#include "base/out_of_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdint>

namespace qlora {
namespace {

// Of c10's CPU allocator and of its CUDA allocator, and of CUDA's own calls and libraries.
constexpr std::string_view kOnCpu[] = {"std::bad_alloc", "can't allocate memory: you tried to",
                                       "not enough memory: you tried to"};
constexpr std::string_view kOnGpu[] = {"CUDA out of memory", "CUDA error: out of memory",
                                       "CUBLAS_STATUS_ALLOC_FAILED"};
constexpr std::string_view kAsked = "ried to allocate ";

template <size_t N>
bool has_any(std::string_view words, const std::string_view (&signs)[N]) {
  return std::ranges::any_of(
      signs, [&](std::string_view sign) { return words.find(sign) != std::string_view::npos; });
}

std::string size_text(uint64_t bytes) {
  const auto number = static_cast<double>(bytes);
  if (number >= 1e9) return fmt::format("{:.1f} GB", number / 1e9);
  if (number >= 1e6) return fmt::format("{:.1f} MB", number / 1e6);
  return fmt::format("{} bytes", bytes);
}

// "2.00 GiB" at the beginning of the text, or "17179869184 bytes" in larger units; else empty.
std::string leading_size(std::string_view text) {
  const size_t blank = text.find(' ');
  if (blank == std::string_view::npos || text.empty() || text[0] < '0' || text[0] > '9') return "";
  const std::string_view number = text.substr(0, blank);
  const size_t begin = blank + 1;
  const size_t end = std::min(text.find_first_of(". ,\n", begin), text.size());
  const std::string_view unit = text.substr(begin, end - begin);
  uint64_t bytes = 0;
  const auto [stop, error] = std::from_chars(number.data(), number.data() + number.size(), bytes);
  if (unit == "bytes" && error == std::errc() && stop == number.data() + number.size())
    return size_text(bytes);
  return unit == "bytes" || unit.ends_with("iB") ? fmt::format("{} {}", number, unit) : "";
}

}  // namespace

OutOfMemory::OutOfMemory(size_t bytes)
    : words_(fmt::format("not enough memory: you tried to allocate {} bytes", bytes)) {}

std::optional<MemoryRefusal> memory_refusal(std::string_view words) {
  MemoryRefusal refusal{.on_gpu = has_any(words, kOnGpu), .asked = "", .free = "", .limit = {}};
  if (!refusal.on_gpu && !has_any(words, kOnCpu)) return std::nullopt;
  if (const size_t at = words.find(kAsked); at != std::string_view::npos)
    refusal.asked = leading_size(words.substr(at + kAsked.size()));
  constexpr std::string_view kOfWhich = "of which ";
  if (const size_t at = words.find(kOfWhich); at != std::string_view::npos)
    refusal.free = leading_size(words.substr(at + kOfWhich.size()));
  return refusal;
}

std::string to_text(const MemoryRefusal& refusal, const std::string& phase) {
  std::string text = "more memory was asked for than the ";
  text += refusal.on_gpu ? "GPU has" : "system gives this process";
  if (!refusal.asked.empty()) text += fmt::format(": {} at once", refusal.asked);
  if (!refusal.free.empty()) text += fmt::format(", where {} are free", refusal.free);
  if (!phase.empty()) text += fmt::format(" ({})", phase);
  if (!refusal.on_gpu && refusal.limit)
    text +=
        fmt::format("; the process may have {} (ulimit {})",
                    size_text(static_cast<uint64_t>(refusal.limit->bytes)), refusal.limit->option);
  text +=
      "; in training, lower train.micro_batch_size or data.sequence_length, set "
      "train.gradient_checkpointing: true, or quantize the base: qlora plan RECIPE --fit SIZE "
      "finds what fits";
  if (!refusal.on_gpu)
    text += "; while a file is read, a damaged one may claim to hold more than it does";
  return text;
}

}  // namespace qlora
