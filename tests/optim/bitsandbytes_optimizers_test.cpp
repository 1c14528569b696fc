// Every optimizer against bitsandbytes 0.50.2 on the CPU; tests/interop/bitsandbytes_optim.py made
// the files and says how to make more.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "optim/optimizer.h"
#include "optim/optimizer_names.h"
#include "tests/support/temp_dir.h"
#include "tests/support/trained_tensors.h"

namespace qlora::optim {
namespace {

struct Golden {
  explicit Golden(const std::filesystem::path& path) : bytes(test::read_file(path.string())) {
    double header[11];
    std::memcpy(header, take(sizeof(header)), sizeof(header));
    elements = static_cast<int64_t>(header[0]);
    steps = static_cast<int64_t>(header[2]);
    options.name = path.stem().stem();  // NAME.CASE.bin
    options.lr = header[3];
    options.weight_decay = header[4];
    options.eps = header[5];
    options.alpha = header[6];
    options.alpha_ramp = static_cast<int64_t>(header[7]);
    options.betas = {header + 8, header + 8 + optimizer_kind(options.name).betas.size()};
  }
  // Whether the state of a step depends on the value, which a last place of a root may change.
  bool value_enters_state() const {
    const Rule rule = optimizer_kind(options.name).rule;
    return couples_decay(rule) && rule != Rule::kMomentum && options.weight_decay > 0;
  }
  const char* take(size_t count) {
    if (at + count > bytes.size()) throw std::runtime_error("the golden file is too short");
    at += count;
    return bytes.data() + at - count;
  }
  at::Tensor tensor(int64_t count, at::ScalarType dtype) {
    const at::Tensor result = at::empty({count}, dtype);
    std::memcpy(result.data_ptr(), take(result.nbytes()), result.nbytes());
    return result;
  }
  std::string bytes;
  size_t at = 0;
  int64_t elements = 0, steps = 0;
  OptimizerOptions options;
};

void expect_same_state(Golden& golden, const NamedTensors& state) {
  int64_t differing = 0, codes = 0;
  for (const auto& [name, tensor] : state) {
    const at::Tensor ours = tensor.flatten();
    const at::Tensor theirs = golden.tensor(ours.numel(), ours.scalar_type());
    if (ours.scalar_type() == at::kByte) {
      const at::Tensor distance = (ours.to(at::kInt) - theirs.to(at::kInt)).abs();
      EXPECT_LE(distance.max().item<int>(), 1) << name;
      differing += distance.count_nonzero().item<int64_t>();
      codes += ours.numel();
    } else if (golden.value_enters_state()) {
      EXPECT_LE(((ours - theirs).abs() / (theirs.abs() + 1e-6)).max().item<double>(), 1e-6) << name;
    } else {
      // The exact bits: state never passes through a root or a quotient.
      EXPECT_TRUE(test::same_bits(ours, theirs)) << name;
    }
  }
  EXPECT_LE(static_cast<double>(differing), 1e-5 * static_cast<double>(codes));
  testing::Test::RecordProperty("differing_codes", static_cast<int>(differing));
  if (codes > 0) std::printf(", %ld of %ld codes differ", differing, codes);
}

TEST(BitsandbytesOptimizers, ParametersAndStateAreThoseOfItsCpuBackend) {
  const char* other = std::getenv("QLORA_OPTIM_GOLDEN");
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(other ? other : QLORA_TEST_GOLDEN "/optim")) {
    if (entry.path().extension() != ".bin") continue;
    SCOPED_TRACE(entry.path().filename());
    ++files;
    Golden golden(entry.path());
    test::TrainedTensors tensors({golden.elements});
    const auto optimizer = make_optimizer(golden.options, tensors.parameters);
    for (int64_t step = 1; step <= golden.steps; ++step) {
      tensors.draw_gradients(static_cast<uint32_t>(step));
      optimizer->step(golden.options.lr, 1.0);
    }
    // Its square root (of MKL) is off by one unit in the last place in a fifth of all elements.
    // Each step adds half a unit of the parameter (below 1: 2^-24) and a few units of the update,
    // which is at most about lr.
    const double tolerance =
        static_cast<double>(golden.steps) * (5.97e-8 + 4 * 1.2e-7 * golden.options.lr);
    const at::Tensor theirs = golden.tensor(golden.elements, at::kFloat);
    const double difference = (tensors.values - theirs).abs().max().item<double>();
    EXPECT_LE(difference, tolerance);
    std::printf("%s: parameters within %.1e", entry.path().stem().c_str(), difference);
    expect_same_state(golden, optimizer->state());
    std::printf("\n");
    EXPECT_EQ(golden.at, golden.bytes.size());
  }
  EXPECT_GE(files, other ? 1 : 16);
}

}  // namespace
}  // namespace qlora::optim
