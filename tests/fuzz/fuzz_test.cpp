// Each fuzz target for a moment: its seeds, and changed ones, which no reader may answer with
// anything but FormatError or ConfigError. `make fuzz` goes on from here.
#include <gtest/gtest.h>

#include <chrono>
#include <random>

#include "tests/fuzz/mutation.h"
#include "tests/fuzz/target.h"

namespace qlora::fuzz {
namespace {

std::string printable(const std::string& bytes) {
  constexpr size_t kShown = 600;
  std::string text;
  for (const char c : bytes.substr(0, kShown)) {
    const bool plain = c == '\n' || (c >= ' ' && c <= '~');
    text += plain ? std::string(1, c) : fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  }
  return text + (bytes.size() > kShown ? fmt::format("... ({} bytes)", bytes.size()) : "");
}

class OutsideBytes : public testing::TestWithParam<Target> {};

TEST_P(OutsideBytes, AreTakenOrRefused) {
  using Clock = std::chrono::steady_clock;
  constexpr int kInputs = 2000;
  constexpr std::chrono::seconds kMoment(4);
  const Target& target = GetParam();
  const std::vector<std::string> seeds = target.seeds();
  ASSERT_FALSE(seeds.empty());
  std::mt19937_64 random(1);
  const auto begin = Clock::now();
  for (int i = 0; i < kInputs && Clock::now() - begin < kMoment; ++i) {
    const std::string& seed = seeds[random() % seeds.size()];
    const size_t unchanged = seeds.size();
    const std::string input =
        i < static_cast<int>(unchanged)
            ? seeds[static_cast<size_t>(i)]
            : mutated(seed, seeds[random() % seeds.size()], target.words, random);
    try {
      target.run(input);
    } catch (const std::exception& fault) {
      ADD_FAILURE() << "input " << i << ": " << fault.what() << "\n" << printable(input);
      return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, OutsideBytes, testing::ValuesIn(targets()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace qlora::fuzz
