// libFuzzer's side of the targets:
//
//   fuzz --target=NAME [libFuzzer's options] CORPUS...
//   fuzz --list                      the targets' names
//   fuzz --target=NAME --seeds=DIR   writes the seeds and a dictionary (DIR.dict)
//
// libFuzzer reads the counters of Clang's instrumentation; what GCC has instead is a call at each
// block, which is counted here in the extra counters that libFuzzer reads too. So the program is
// built by the compiler that builds everything else.
#include <fmt/format.h>

#include <cctype>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "tests/fuzz/target.h"

namespace qlora::fuzz {
namespace {

constexpr size_t kCounters = 1 << 16;
__attribute__((section("__libfuzzer_extra_counters"), used)) uint8_t counters[kCounters];

std::optional<std::string> option(int count, char** arguments, const std::string& name) {
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    if (argument.starts_with(name + "=")) return argument.substr(name.size() + 1);
    if (argument == name) return "";
  }
  return std::nullopt;
}

// In libFuzzer's dictionary format: bytes that are no letters as \xNN.
std::string quoted(const std::string& word) {
  std::string text = "\"";
  for (const char c : word) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      text += c;
    } else {
      text += fmt::format("\\x{:02X}", static_cast<unsigned char>(c));
    }
  }
  return text + "\"";
}

void write_seeds(const Target& target, const std::string& directory) {
  std::filesystem::create_directories(directory);
  int number = 0;
  for (const std::string& seed : target.seeds())
    std::ofstream(fmt::format("{}/seed-{:02}", directory, number++), std::ios::binary) << seed;
  std::ofstream dictionary(directory + ".dict");
  for (const std::string& word : target.words) dictionary << quoted(word) << '\n';
}

const Target* chosen = nullptr;

}  // namespace
}  // namespace qlora::fuzz

extern "C" {

// What GCC calls at each block: libFuzzer has a function of that name, which does nothing; the
// linker puts this one in its place (--wrap, see CMakeLists.txt).
__attribute__((no_sanitize_coverage, no_sanitize("address", "undefined"))) void
__wrap___sanitizer_cov_trace_pc() {
  const auto place = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
  uint8_t& counter = qlora::fuzz::counters[(place ^ (place >> 16)) % qlora::fuzz::kCounters];
  if (counter < 255) ++counter;
}

// GCC reports comparisons of floating-point numbers too, which libFuzzer has no use for.
void __sanitizer_cov_trace_cmpf(float, float) {}
void __sanitizer_cov_trace_cmpd(double, double) {}

int LLVMFuzzerInitialize(int* count, char*** arguments) {
  using namespace qlora;
  if (fuzz::option(*count, *arguments, "--list")) {
    for (const fuzz::Target& target : fuzz::targets()) std::puts(target.name.c_str());
    std::exit(0);
  }
  fuzz::chosen = &fuzz::target_named(fuzz::option(*count, *arguments, "--target").value_or(""));
  if (const auto directory = fuzz::option(*count, *arguments, "--seeds")) {
    fuzz::write_seeds(*fuzz::chosen, *directory);
    std::exit(0);
  }
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  qlora::fuzz::chosen->run({reinterpret_cast<const char*>(bytes), size});
  return 0;
}

}  // extern "C"
