// Every format that is decoded for its products: bits a weight, how fast it is decoded to bfloat16
// and multiplied with one row of x, and how many times as fast as with portable code that is on
// each instruction set. Prints two tables in Markdown:
//
//   OMP_NUM_THREADS=2 build/bin/bench_formats
//
// Formats and instruction sets take turns, and the shortest of the calls counts: what the machine
// can do, whatever else it does now and then. Loops that the compiler vectorises by itself
// (base/vectorize.h) take what the processor has, not what is asked for, so that 1.0 stands there.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/instruction_set.h"
#include "base/parallel_for.h"
#include "base/short_waits.h"
#include "base/stopwatch.h"
#include "bench/made_formats.h"
#include "quant/few_rows/rows_product.h"

namespace qlora::bench {
namespace {

struct Setting {
  int64_t rows = 1536, columns = 4096;  // of a projection of an 8B model
  int rounds = 5;
  std::string only;
};

constexpr double kTurnSeconds = 0.02;

struct Measured {
  std::string name;
  std::unique_ptr<quant::FrozenWeight> weight;
  std::vector<double> seconds;  // of a call on each instruction set, the least
};

std::vector<InstructionSet> sets_in_use() {
  std::vector<InstructionSet> sets;
  for (const InstructionSet set : {InstructionSet::kBaseline, InstructionSet::kAvx2,
                                   InstructionSet::kAvx512, InstructionSet::kAvx512Bfloat16})
    if (set <= instruction_set()) sets.push_back(set);
  return sets;
}

std::vector<Measured> made_weights(const Setting& s) {
  std::vector<Measured> all;
  for (const MadeFormat& format : made_formats()) {
    const bool asked_for = all.empty() || format.name.find(s.only) != std::string::npos;
    if (asked_for && s.columns % format.unit == 0)
      all.push_back({format.name, format.make(s.rows, s.columns), {}});
  }
  return all;
}

template <typename Body>
double least_seconds(const Body& body) {
  body();
  double least = std::numeric_limits<double>::infinity();
  const Stopwatch turn;
  do {
    const Stopwatch watch;
    body();
    least = std::min(least, watch.seconds());
  } while (turn.seconds() < kTurnSeconds);
  return least;
}

// call(weight)
template <typename Call>
void measure(const Setting& s, const std::vector<InstructionSet>& sets, const Call& call,
             std::vector<Measured>& all) {
  for (Measured& one : all)
    one.seconds.assign(sets.size(), std::numeric_limits<double>::infinity());
  for (int round = 0; round < s.rounds; ++round)
    for (Measured& one : all)
      for (size_t i = 0; i < sets.size(); ++i) {
        const AtMost most(sets[i]);
        one.seconds[i] = std::min(one.seconds[i], least_seconds([&] { call(*one.weight); }));
      }
}

// Speeds are those of the last instruction set.
void print_table(const std::string& title, const Setting& s,
                 const std::vector<InstructionSet>& sets, const std::vector<Measured>& all) {
  fmt::print("\n{}\n\n| format | bits a weight | GB/s of packed bytes | G weights/s | against {} |",
             title, all.front().name);
  for (size_t i = 1; i < sets.size(); ++i) fmt::print(" {}, times portable |", to_string(sets[i]));
  fmt::print("\n|---|---:|---:|---:|---:|");
  for (size_t i = 1; i < sets.size(); ++i) fmt::print("---:|");
  const auto weights = static_cast<double>(s.rows * s.columns);
  for (const Measured& one : all) {
    const auto bytes = static_cast<double>(one.weight->bytes());
    const double seconds = one.seconds.back();
    fmt::print("\n| {} | {:.2f} | {:.1f} | {:.1f} | {:.2f} |", one.name, bytes * 8 / weights,
               bytes / seconds / 1e9, weights / seconds / 1e9,
               all.front().seconds.back() / seconds);
    for (size_t i = 1; i < sets.size(); ++i)
      fmt::print(" {:.1f} |", one.seconds.front() / one.seconds[i]);
  }
  fmt::print("\n");
}

void print_tables(const Setting& s) {
  const std::vector<InstructionSet> sets = sets_in_use();
  std::vector<Measured> all = made_weights(s);
  fmt::print("{} x {}, {} threads, {}\n", s.rows, s.columns, num_threads(),
             describe_instruction_set());
  at::Tensor rows = at::zeros({s.rows, s.columns}, at::kBFloat16);
  measure(
      s, sets,
      [&](const quant::FrozenWeight& weight) { weight.dequantize_rows(0, 0, s.rows, rows); }, all);
  print_table("Decoded to bfloat16, into a buffer that is used again", s, sets, all);
  const at::Tensor x = at::randn({1, s.columns}).to(at::kBFloat16);
  at::Tensor y = at::zeros({1, s.rows}, at::kBFloat16);
  measure(
      s, sets,
      [&](const quant::FrozenWeight& weight) { quant::multiply_few_rows({&weight}, x, false, y); },
      all);
  print_table("Multiplied with one row of x in bfloat16, from the cache", s, sets, all);
}

}  // namespace
}  // namespace qlora::bench

QLORA_SHORT_WAITS

int main(int argc, char** argv) {
  qlora::bench::Setting s;
  CLI::App app("Decoding of every format, with every instruction set");
  app.add_option("--rows", s.rows, "of the weight")->capture_default_str();
  app.add_option("--columns", s.columns, "a multiple of 64; of 256 for K types of GGUF")
      ->capture_default_str();
  app.add_option("--rounds", s.rounds, "in which all formats and instruction sets take turns")
      ->capture_default_str();
  app.add_option("--only", s.only, "formats whose names hold this, beside the first");
  CLI11_PARSE(app, argc, argv);
  qlora::bench::print_tables(s);
}
