// Every family against transformers, without Python: the small models of tests/data/families.json,
// which tests/interop/families.py --vectors wrote, with the losses that transformers gave them.
#include "model/families/family.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/instruction_set.h"
#include "io/json.h"
#include "model/few_tokens.h"
#include "model/kv_cache.h"
#include "model/load.h"
#include "quant/few_rows/rows_product.h"
#include "quant/tensor_file.h"
#include "tests/support/next_token_targets.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "trainer/loss.h"

namespace qlora::model {
namespace {
using nlohmann::json;
using test::TempDir;
using testing::ElementsAreArray;
using testing::IsEmpty;

// The model types of families.json that no family reads yet, sorted. Who adds a family takes its
// own out of the list.
const std::vector<std::string> kNotReadYet = {};

constexpr double kLossTolerance = 2e-5;

struct Case {
  std::string name;
  const json* model;  // an entry of families.json
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

const json& families_file() {
  static const json file = io::read_json_file(QLORA_SOURCE_DIR "/tests/data/families.json");
  return file;
}

// Of the text model, where there are others beside it.
std::string model_type(const json& model) {
  const json& config = model.at("config");
  return config.value("text_config", config).at("model_type").get<std::string>();
}

bool is_read(const std::string& type) {
  try {
    family_of_model_type(type, "families.json");
    return true;
  } catch (const FormatError&) {
    return false;
  }
}

// A name that a test may have.
std::string test_name(std::string name) {
  std::ranges::replace_if(
      name, [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const json& model : families_file().at("models"))
    if (is_read(model_type(model)))
      all.push_back({test_name(model.at("name").get<std::string>()), &model});
  return all;
}

// The names that "a.{0-2}.b" stands for.
std::vector<std::string> written_out(const std::string& pattern) {
  const size_t open = pattern.find('{');
  if (open == std::string::npos) return {pattern};
  const size_t dash = pattern.find('-', open), close = pattern.find('}', open);
  const int first = std::stoi(pattern.substr(open + 1, dash - open - 1));
  const int last = std::stoi(pattern.substr(dash + 1, close - dash - 1));
  std::vector<std::string> names;
  for (int i = first; i <= last; ++i)
    for (const std::string& rest : written_out(pattern.substr(close + 1)))
      names.push_back(pattern.substr(0, open) + std::to_string(i) + rest);
  return names;
}

uint32_t fnv1a(const std::string& text) {
  uint32_t hash = 2166136261u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

// An odd number from -63 to 63, by the rule at the top of tests/interop/families.py.
int hashed_number(uint32_t seed, uint32_t index) {
  uint32_t h = seed + index * 0x9E3779B9u;
  h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
  h = (h ^ (h >> 13)) * 0xC2B2AE35u;
  h ^= h >> 16;
  return 2 * static_cast<int>(h >> 26) - 63;
}

at::Tensor made_tensor(const std::string& name, const std::vector<int64_t>& shape) {
  at::Tensor tensor = at::empty(shape, at::kFloat);
  const uint32_t seed = fnv1a(name);
  const float divisor = shape.size() == 1 ? 128.0f : 256.0f;
  float* values = tensor.mutable_data_ptr<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i)
    values[i] = static_cast<float>(hashed_number(seed, static_cast<uint32_t>(i))) / divisor;
  return tensor;
}

void write_directory(const TempDir& dir, const json& model) {
  dir.write("config.json", model.at("config").dump());
  quant::NamedTensors tensors;
  for (const auto& [pattern, shape] : model.at("tensors").items())
    for (const std::string& name : written_out(pattern))
      tensors.emplace_back(name, made_tensor(name, shape.get<std::vector<int64_t>>()));
  quant::write_tensors(dir / "model.safetensors", tensors, {{"format", "pt"}});
}

// In float32. Every tensor of the file must be the model's.
std::unique_ptr<CausalLm> load(const json& model) {
  const TempDir dir;
  write_directory(dir, model);
  const auto source = open_weights(dir.path());
  ModelOptions options;
  options.dtype = "float32";
  quant::QuantizationOptions quantization;
  quantization.method = "none";
  auto loaded = load_model(*source, options, quantization, at::kCPU, at::kFloat);
  EXPECT_THAT(source->unread(), IsEmpty());
  return loaded;
}

std::vector<std::vector<int32_t>> rows() {
  return families_file().at("rows").get<std::vector<std::vector<int32_t>>>();
}

// An encoder reads each document backwards.
ForwardInput laid_end_to_end(const CausalLm& model,
                             const std::vector<std::vector<int32_t>>& documents) {
  ForwardInput input;
  input.cu_seqlens = {0};
  for (const std::vector<int32_t>& tokens : documents) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      input.tokens.push_back(tokens[i]);
      input.positions.push_back(static_cast<int32_t>(i));
    }
    if (model.architecture().has_encoder())
      input.source.tokens.insert(input.source.tokens.end(), tokens.rbegin(), tokens.rend());
    input.cu_seqlens.push_back(static_cast<int32_t>(input.tokens.size()));
  }
  if (model.architecture().has_encoder()) input.source.cu_seqlens = input.cu_seqlens;
  return input;
}

// Of each token that follows another in its document.
std::vector<double> next_token_losses(CausalLm& model, const ForwardInput& input) {
  at::NoGradGuard no_grad;
  const at::Tensor log_probabilities =
      at::log_softmax(model.logits(model.hidden(input)).to(at::kDouble), -1);
  const std::vector<int32_t> targets = test::next_token_targets(input);
  std::vector<double> losses;
  for (size_t i = 0; i < targets.size(); ++i)
    if (targets[i] >= 0)
      losses.push_back(-log_probabilities[static_cast<int64_t>(i)][targets[i]].item<double>());
  return losses;
}

void expect_losses(const std::vector<double>& found, const std::vector<double>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i)
    EXPECT_NEAR(found[i], expected[i], kLossTolerance) << "next token " << i;
}

class EveryFamily : public testing::TestWithParam<Case> {
 protected:
  const json& entry() const { return *GetParam().model; }
  // One list for each row.
  std::vector<std::vector<double>> expected() const {
    return entry().at("losses").get<std::vector<std::vector<double>>>();
  }
};

TEST_P(EveryFamily, GivesTheLossesOfTransformers) {
  const auto model = load(entry());
  const auto documents = rows();
  const auto losses = expected();
  ASSERT_EQ(losses.size(), documents.size());
  for (size_t row = 0; row < documents.size(); ++row) {
    SCOPED_TRACE(testing::Message() << "row " << row);
    expect_losses(next_token_losses(*model, laid_end_to_end(*model, {documents[row]})),
                  losses[row]);
  }
}

TEST_P(EveryFamily, GivesRowsInOnePassTheSameLosses) {
  const auto model = load(entry());
  std::vector<double> losses;
  for (const std::vector<double>& row : expected())
    losses.insert(losses.end(), row.begin(), row.end());
  expect_losses(next_token_losses(*model, laid_end_to_end(*model, rows())), losses);
}

struct Step {
  double loss;
  at::Tensor gradients;
};

Step step_of(CausalLm& model, lora::AdapterSet& adapters, const ForwardInput& input) {
  adapters.zero_gradients();
  const at::Tensor loss = trainer::fused_cross_entropy(
      model.hidden(input), test::next_token_targets(input), model.head, 1.0 / 10,
      model.context(input), model.architecture().logit_softcap);
  loss.backward();
  return {loss.item<double>(), adapters.gradients().clone()};
}

TEST_P(EveryFamily, RecomputedLayersGiveTheSameBits) {
  const auto model = load(entry());
  const auto adapters = test::tiny_adapters(*model, true);
  ForwardInput input = laid_end_to_end(*model, rows());
  input.training = true;
  const Step kept = step_of(*model, *adapters, input);
  EXPECT_GT(kept.gradients.abs().max().item<float>(), 0);
  for (const RecomputedLayers& layers : {RecomputedLayers::first(1), RecomputedLayers(true)}) {
    input.recompute_layers = layers;
    const Step recomputed = step_of(*model, *adapters, input);
    EXPECT_EQ(recomputed.loss, kept.loss);
    EXPECT_TRUE(at::equal(recomputed.gradients, kept.gradients));
  }
}

// What a cached pass makes of tokens [begin, end) of a text.
at::Tensor continued(CausalLm& model, KvCache& cache, const std::vector<int32_t>& text,
                     int64_t begin, int64_t end) {
  ForwardInput input;
  input.tokens.assign(text.begin() + begin, text.begin() + end);
  for (int64_t i = begin; i < end; ++i) input.positions.push_back(static_cast<int32_t>(i));
  input.cu_seqlens = {0, static_cast<int32_t>(end - begin)};
  input.cache = &cache;
  return model.logits(model.hidden(input));
}

// As answers with guessed tokens need it, on every instruction set.
TEST_P(EveryFamily, GivesTokensOfOneCachedPassTheBitsThatEachGetsAlone) {
  for (const auto set : {InstructionSet::kBaseline, InstructionSet::kAvx2, InstructionSet::kAvx512,
                         InstructionSet::kAvx512Bfloat16}) {
    const AtMost most(set);
    const auto model = load(entry());
    const auto adapters = test::tiny_adapters(*model, true);
    ASSERT_EQ(tokens_are_independent(*model), !model->architecture().has_encoder());
    if (model->architecture().has_encoder()) return;
    at::NoGradGuard no_grad;
    const std::vector<int32_t> text = rows().back();
    // The rotation of a longer text than longrope's is another one.
    auto length = static_cast<int64_t>(text.size());
    for (const RotarySpec& rotary : model->architecture().rotaries)
      if (rotary.rope.type == "longrope")
        length = std::min(length, static_cast<int64_t>(rotary.rope.original_max_positions));
    const int64_t prompt = length / 3;
    ASSERT_GT(length - prompt, 2);
    const auto cache_of = [&] {
      KvCache cache(model->cache_widths(), 1, length, at::kFloat, at::kCPU);
      continued(*model, cache, text, 0, prompt);
      return cache;
    };
    KvCache alone = cache_of(), together = cache_of();
    std::vector<at::Tensor> each;
    for (int64_t i = prompt; i < length; ++i)
      each.push_back(continued(*model, alone, text, i, i + 1));
    for (int64_t i = prompt; i < length; i += quant::kFewRows) {
      const int64_t end = std::min(length, i + quant::kFewRows);
      const at::Tensor found = continued(*model, together, text, i, end);
      for (int64_t row = i; row < end; ++row)
        EXPECT_TRUE(at::equal(found.narrow(0, row - i, 1), each[static_cast<size_t>(row - prompt)]))
            << "token " << row;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EveryFamily, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

TEST(Families, AllButTheListedOnesOfTheFileAreRead) {
  std::set<std::string> refused;
  for (const json& model : families_file().at("models"))
    if (const std::string type = model_type(model); !is_read(type)) refused.insert(type);
  EXPECT_THAT(refused, ElementsAreArray(kNotReadYet));
}

}  // namespace
}  // namespace qlora::model
