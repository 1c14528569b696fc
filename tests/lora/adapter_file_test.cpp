#include "lora/adapter_file.h"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "quant/tensor_file.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace qlora::lora {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr const char* kTensors = "adapter_model.safetensors";
constexpr const char* kConfig = "adapter_config.json";

LoraOptions tiny_options() {
  LoraOptions options;
  options.rank = 4;
  options.alpha = 8;
  options.dropout = 0.25;
  options.targets = {"all-linear"};
  return options;
}

// A written adapter of the tiny model, and another one to read into.
class AdapterFile : public testing::Test {
 protected:
  void SetUp() override {
    base.name = "someone/model";
    base.path = "/where/it/was";
    base.quantization.method = "nf4";
    base.quantization.block_size = 128;
    base.quantization.skip_modules = {"lm_head", "down_proj"};
    base.dtype = "float16";
    base.hash = "0123456789abcdef";
    base.compute_dtype = "float32";
    base.made_from = "someone/original@v1";
    base.stored_by = "gptq";
    base.stored_as = "GPTQ, 4 bit";
    write_adapter(dir.path(), *written, tiny_options(), base);
  }

  void edit_config(const std::string& key, const nlohmann::json& value) {
    auto config = nlohmann::json::parse(test::read_file(dir / kConfig));
    config[key] = value;
    dir.write(kConfig, config.dump());
  }

  void edit_tensors(const std::function<void(quant::NamedTensors&)>& edit) {
    quant::NamedTensors tensors = quant::read_tensors(dir / kTensors);
    edit(tensors);
    fs::remove(dir / kTensors);
    quant::write_tensors(dir / kTensors, tensors, {{"format", "pt"}});
  }

  void expect_tensors_refused(const std::string& part) {
    const at::Tensor before = read->tensors().front().value.clone();
    EXPECT_THAT([&] { read_adapter_tensors(dir.path(), *read); },
                ThrowsMessage<FormatError>(AllOf(HasSubstr(kTensors), HasSubstr(part))));
    EXPECT_TRUE(at::equal(before, read->tensors().front().value)) << "half of it was read";
  }

  test::TempDir dir;
  std::unique_ptr<model::CausalLm> one = test::tiny_model(), other = test::tiny_model();
  std::unique_ptr<AdapterSet> written = test::tiny_adapters(*one, true);
  std::unique_ptr<AdapterSet> read = test::tiny_adapters(*other, false);
  AdapterBase base;
};

TEST_F(AdapterFile, TensorsComeBackBitForBit) {
  read_adapter_tensors(dir.path(), *read);
  ASSERT_EQ(read->tensors().size(), written->tensors().size());
  for (size_t i = 0; i < read->tensors().size(); ++i) {
    EXPECT_EQ(read->tensors()[i].name, written->tensors()[i].name);
    EXPECT_TRUE(at::equal(read->tensors()[i].value, written->tensors()[i].value));
  }
}

TEST_F(AdapterFile, OptionsAndBaseComeBack) {
  const LoraOptions options = read_adapter_options(dir.path());
  EXPECT_EQ(options.rank, 4);
  EXPECT_EQ(options.alpha, 8);
  EXPECT_EQ(options.dropout, 0.25);
  EXPECT_FALSE(options.use_rslora);
  EXPECT_EQ(options.targets, written->target_modules());
  const auto found = read_adapter_base(dir.path());
  ASSERT_TRUE(found);
  EXPECT_EQ(found->name, base.name);
  EXPECT_EQ(found->path, base.path);
  EXPECT_EQ(found->hash, base.hash);
  EXPECT_EQ(found->dtype, base.dtype);
  EXPECT_EQ(found->compute_dtype, "float32");
  EXPECT_EQ(found->made_from, "someone/original@v1");
  EXPECT_EQ(found->stored_by, "gptq");
  EXPECT_EQ(found->stored_as, "GPTQ, 4 bit");
  EXPECT_EQ(found->quantization.method, "nf4");
  EXPECT_EQ(found->quantization.block_size, 128);
  EXPECT_EQ(found->quantization.skip_modules, base.quantization.skip_modules);
}

TEST_F(AdapterFile, TheRevisionOfAHubIdIsAKeyOfItsOwn) {
  const auto config = [this] { return nlohmann::json::parse(test::read_file(dir / kConfig)); };
  EXPECT_EQ(config().at("base_model_name_or_path"), "someone/model");
  EXPECT_TRUE(config().at("revision").is_null());
  base.name = "someone/model@v1.0";
  write_adapter(dir.path(), *written, tiny_options(), base);
  EXPECT_EQ(config().at("base_model_name_or_path"), "someone/model");
  EXPECT_EQ(config().at("revision"), "v1.0");
  EXPECT_EQ(read_adapter_base(dir.path())->name, base.name);
  base.name = "someone/model@refs/pr/1";
  write_adapter(dir.path(), *written, tiny_options(), base);
  EXPECT_EQ(config().at("base_model_name_or_path"), "someone/model");
  EXPECT_EQ(config().at("revision"), "refs/pr/1");
  base.name = "/models/of@mine";
  write_adapter(dir.path(), *written, tiny_options(), base);
  EXPECT_EQ(config().at("base_model_name_or_path"), base.name);
  EXPECT_TRUE(config().at("revision").is_null());
}

TEST(AdapterBase, WithoutPlacesHasNamesAlone) {
  const auto names_of = [](const std::string& name, const std::string& path,
                           const std::string& made_from) {
    AdapterBase base;
    base.name = name;
    base.path = path;
    base.made_from = made_from;
    base = without_places(base);
    return std::vector<std::string>{base.name, base.path, base.made_from};
  };
  EXPECT_THAT(names_of("/home/me/models/llama/", "/home/me/models/llama/", ""),
              testing::ElementsAre("llama", "llama", ""));
  EXPECT_THAT(names_of("/runs/mine/base", "/runs/mine/base", "/home/me/m.gguf"),
              testing::ElementsAre("base", "base", "m.gguf"));
  const std::string snapshot = "models--org--name/snapshots/abc";
  EXPECT_THAT(names_of("org/name@abc", "/home/me/hub/" + snapshot, "org/other"),
              testing::ElementsAre("org/name@abc", snapshot, "org/other"));
  EXPECT_THAT(names_of("org/name", "/home/me/hub/" + snapshot + "/q4/m.gguf", ""),
              testing::ElementsAre("org/name", snapshot + "/q4/m.gguf", ""));
}

TEST_F(AdapterFile, Bfloat16TensorsAreReadAsTheyAre) {
  edit_tensors([](quant::NamedTensors& tensors) {
    for (auto& [name, tensor] : tensors) tensor = tensor.to(at::kBFloat16);
  });
  read_adapter_tensors(dir.path(), *read);
  for (size_t i = 0; i < read->tensors().size(); ++i) {
    const at::Tensor rounded = written->tensors()[i].value.to(at::kBFloat16).to(at::kFloat);
    EXPECT_TRUE(at::equal(read->tensors()[i].value, rounded));
  }
}

TEST_F(AdapterFile, AnAdapterMadeElsewhereHasNoRecordOfItsBase) {
  fs::remove(dir / "qlora_base.json");
  EXPECT_FALSE(read_adapter_base(dir.path()));
}

TEST_F(AdapterFile, WhatCannotBeReproducedIsRefusedByTheNameOfItsKey) {
  const std::vector<std::pair<std::string, nlohmann::json>> keys = {
      {"peft_type", "IA3"},
      {"lora_bias", true},
      {"megatron_config", {{"tensor_model_parallel_size", 2}}},
      {"layer_replication", {{0, 1}}},
      {"alora_invocation_tokens", {5}},
      {"use_qalora", true},
      {"use_bdlora", {{"nblocks", 2}}},
      {"velora_config", {{"rank", 1}}},
      {"monteclora_config", {{"samples", 2}}},
      {"arrow_config", {{"top_k", 3}}},
      {"kasa_config", {{"beta", 1}}},
      {"layers_pattern", {"stages"}},
      {"rank_pattern", {"q_proj"}}};
  const std::string config = test::read_file(dir / kConfig);
  for (const auto& [key, value] : keys) {
    edit_config(key, value);
    EXPECT_THAT([&] { read_adapter_options(dir.path()); },
                ThrowsMessage<FormatError>(AllOf(HasSubstr(kConfig), HasSubstr(key))))
        << key;
    dir.write(kConfig, config);
  }
  for (const char* key : {"rank_pattern", "modules_to_save"}) {  // empty is as good as absent
    edit_config(key, nlohmann::json::array());
    EXPECT_EQ(read_adapter_options(dir.path()).rank, 4) << key;
  }
}

// Every field of PEFT 0.21's LoraConfig with a value that is not its default: it is read, has no
// part in how stored tensors act, or is refused (the test above).
TEST_F(AdapterFile, FieldsThatHaveNoPartInTheStoredTensorsAreAccepted) {
  edit_config("task_type", "FEATURE_EXTRACTION");
  edit_config("auto_mapping", {{"base_model_class", "LlamaForCausalLM"}});
  edit_config("peft_version", "0.21.2");
  edit_config("revision", "main");
  edit_config("inference_mode", false);
  edit_config("init_lora_weights", "pissa_niter_4");
  edit_config("loftq_config", {{"loftq_bits", 4}});
  edit_config("eva_config", {{"rho", 2.0}});
  edit_config("corda_config", {{"corda_method", "ipm"}});
  edit_config("lora_ga_config", {{"scale", "stable"}});
  edit_config("megatron_core", "megatron.core");
  edit_config("qalora_group_size", 32);
  edit_config("ensure_weight_tying", true);
  const LoraOptions options = read_adapter_options(dir.path());
  EXPECT_EQ(options.rank, 4);
}

TEST_F(AdapterFile, DoraBiasAndPatternsAreRead) {
  edit_config("use_dora", true);
  edit_config("bias", "lora_only");
  edit_config("use_rslora", true);
  edit_config("layers_to_transform", 1);
  edit_config("layers_pattern", "layers");
  edit_config("exclude_modules", {"o_proj"});
  const LoraOptions options = read_adapter_options(dir.path());
  EXPECT_TRUE(options.use_dora);
  EXPECT_TRUE(options.use_rslora);
  EXPECT_EQ(options.bias, "lora_only");
  EXPECT_THAT(options.layers_to_transform, testing::ElementsAre(1));
  EXPECT_THAT(options.exclude_modules, testing::ElementsAre("o_proj"));
}

// As PEFT does, which loads the adapter where a module has one of them.
TEST_F(AdapterFile, OfSeveralNamesOfTheListOfLayersOneIsEnough) {
  edit_config("layers_to_transform", {0, 1});
  for (const nlohmann::json& names :
       {nlohmann::json({"layer", "layers"}), nlohmann::json("model.layers"), nlohmann::json(""),
        nlohmann::json::array(), nlohmann::json(nullptr)}) {
    edit_config("layers_pattern", names);
    EXPECT_THAT(read_adapter_options(dir.path()).layers_to_transform, testing::ElementsAre(0, 1))
        << names;
  }
  edit_config("layers_pattern", {"layer", "stages"});
  EXPECT_THAT([&] { read_adapter_options(dir.path()); },
              ThrowsMessage<FormatError>(HasSubstr("layers_pattern")));
}

TEST_F(AdapterFile, WhatIsTrainedBesideTheAdaptersIsRead) {
  edit_config("modules_to_save", {"lm_head", "norm"});
  edit_config("ensure_weight_tying", true);
  edit_config("trainable_token_indices", {5, 3});
  LoraOptions options = read_adapter_options(dir.path());
  EXPECT_THAT(options.modules_to_save, testing::ElementsAre("lm_head", "norm"));
  EXPECT_TRUE(options.ensure_weight_tying);
  EXPECT_THAT(options.trainable_token_indices.at("embed_tokens"), testing::ElementsAre(5, 3));
  edit_config("trainable_token_indices", {{"lm_head", {7}}});
  options = read_adapter_options(dir.path());
  EXPECT_EQ(options.trainable_token_indices.size(), 1u);
  EXPECT_THAT(options.trainable_token_indices.at("lm_head"), testing::ElementsAre(7));
  edit_config("trainable_token_indices", {-1});
  EXPECT_THROW(read_adapter_options(dir.path()), FormatError);
}

// Writes an adapter with these options and reads it into another model.
struct RoundTrip {
  explicit RoundTrip(const LoraOptions& options) {
    const auto model = test::tiny_model();
    written = std::make_unique<AdapterSet>(options, model->parts(), at::kFloat, 1);
    at::NoGradGuard no_grad;
    at::Tensor(written->values()).normal_();
    written->round_to_dtype();
    written->publish();
    write_adapter(dir.path(), *written, options, {});
    found = read_adapter_options(dir.path());
    found.dtype = options.dtype;
    into = test::tiny_model();
    read = std::make_unique<AdapterSet>(found, into->parts(), at::kFloat, 2);
    read_adapter_tensors(dir.path(), *read);
  }
  test::TempDir dir;
  std::unique_ptr<AdapterSet> written, read;
  std::unique_ptr<model::CausalLm> into;
  LoraOptions found;
};

TEST(AdapterFileBesideLora, ComesBackBitForBitUnderPeftsNames) {
  LoraOptions options;
  options.rank = 4;
  options.modules_to_save = {"lm_head", "model.norm", "o_proj"};
  options.trainable_token_indices["embed_tokens"] = {9, 4};
  EXPECT_THROW(RoundTrip{options}, ConfigError);  // tied: the tokens are lm_head's too
  options.modules_to_save = {"model.norm", "o_proj"};
  const RoundTrip trip(options);
  EXPECT_TRUE(at::equal(trip.read->values(), trip.written->values()));
  EXPECT_EQ(trip.found.modules_to_save, options.modules_to_save);
  EXPECT_EQ(trip.found.trainable_token_indices, options.trainable_token_indices);
  std::vector<std::string> names;
  for (const auto& [name, tensor] : quant::read_tensors(trip.dir / kTensors)) names.push_back(name);
  EXPECT_THAT(names,
              testing::IsSupersetOf(
                  {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta",
                   "base_model.model.model.norm.weight",
                   "base_model.model.model.layers.0.self_attn.o_proj.weight"}));
}

TEST(AdapterFileBesideLora, ASharedMatrixStandsUnderBothNamesOrOneAndBothMustAgree) {
  LoraOptions options;
  options.rank = 4;
  options.modules_to_save = {"embed_tokens"};
  options.ensure_weight_tying = true;
  RoundTrip trip(options);
  EXPECT_TRUE(at::equal(trip.read->values(), trip.written->values()));
  quant::NamedTensors tensors = quant::read_tensors(trip.dir / kTensors);
  const auto write = [&](const quant::NamedTensors& all) {
    fs::remove(trip.dir / kTensors);
    quant::write_tensors(trip.dir / kTensors, all, {{"format", "pt"}});
  };
  for (const char* missing :
       {"base_model.model.lm_head.weight", "base_model.model.model.embed_tokens.weight"}) {
    quant::NamedTensors one = tensors;
    ASSERT_EQ(std::erase_if(one, [&](const auto& entry) { return entry.first == missing; }), 1U);
    write(one);
    const at::NoGradGuard no_grad;
    trip.read->values().zero_();
    read_adapter_tensors(trip.dir.path(), *trip.read);
    EXPECT_TRUE(at::equal(trip.read->values(), trip.written->values())) << missing;
  }
  const auto head = std::ranges::find(tensors, "base_model.model.lm_head.weight",
                                      [](const auto& entry) { return entry.first; });
  ASSERT_NE(head, tensors.end());
  head->second = head->second + 1;
  write(tensors);
  EXPECT_THAT([&] { read_adapter_tensors(trip.dir.path(), *trip.read); },
              ThrowsMessage<FormatError>(HasSubstr("ensure_weight_tying")));
}

TEST(AdapterFileBesideLora, TheFrozenWeightOfAnAdaptedHeadMustBeTheBases) {
  LoraOptions options;
  options.rank = 4;
  options.targets = {"lm_head"};
  RoundTrip trip(options);
  quant::NamedTensors tensors = quant::read_tensors(trip.dir / kTensors);
  const auto write_with = [&](const at::Tensor& weight) {
    quant::NamedTensors all = tensors;
    all.emplace_back("base_model.model.lm_head.base_layer.weight", weight);
    fs::remove(trip.dir / kTensors);
    quant::write_tensors(trip.dir / kTensors, all, {{"format", "pt"}});
  };
  const at::Tensor base = trip.into->embedding.weight;
  write_with(base.to(at::kBFloat16));
  read_adapter_tensors(trip.dir.path(), *trip.read);
  write_with(base + 1);
  EXPECT_THAT([&] { read_adapter_tensors(trip.dir.path(), *trip.read); },
              ThrowsMessage<FormatError>(HasSubstr("lm_head.base_layer")));
}

TEST(AdapterFileBesideLora, BFloat16MastersAreSavedAsSuch) {
  LoraOptions options;
  options.rank = 4;
  options.dtype = "bfloat16";
  const RoundTrip trip(options);
  for (const auto& [name, tensor] : quant::read_tensors(trip.dir / kTensors))
    EXPECT_EQ(tensor.scalar_type(), at::kBFloat16) << name;
  EXPECT_TRUE(at::equal(trip.read->values(), trip.written->values()));
}

TEST_F(AdapterFile, ATargetPatternOfPeftIsOneText) {
  edit_config("target_modules", ".*q_proj");
  EXPECT_THAT(read_adapter_options(dir.path()).targets, testing::ElementsAre(".*q_proj"));
}

TEST_F(AdapterFile, WrongTypesAndImpossibleRanksAreRefused) {
  for (const nlohmann::json& rank : {nlohmann::json(0), nlohmann::json(-4), nlohmann::json("8"),
                                     nlohmann::json(1.5), nlohmann::json(1'000'000)}) {
    edit_config("r", rank);
    EXPECT_THAT([&] { read_adapter_options(dir.path()); },
                ThrowsMessage<FormatError>(HasSubstr("r")))
        << rank;
  }
  dir.write(kConfig, R"({"r": 4, )");
  EXPECT_THROW(read_adapter_options(dir.path()), FormatError);
  fs::remove(dir / kConfig);
  EXPECT_THROW(read_adapter_options(dir.path()), ConfigError);
}

TEST_F(AdapterFile, AMissingTensorIsNamed) {
  std::string name;
  edit_tensors([&](quant::NamedTensors& tensors) {
    name = tensors.back().first;
    tensors.pop_back();
  });
  expect_tensors_refused(name);
}

TEST_F(AdapterFile, ASuperfluousTensorIsNamed) {
  edit_tensors([](quant::NamedTensors& tensors) {
    tensors.emplace_back("base_model.model.lm_head.lora_A.weight", at::zeros({4, 32}));
  });
  expect_tensors_refused("lm_head.lora_A");
}

TEST_F(AdapterFile, ATensorOfAnotherShapeIsNamedWithBothShapes) {
  edit_tensors([](quant::NamedTensors& tensors) { tensors.back().second = at::zeros({3, 5}); });
  expect_tensors_refused("[3, 5]");
}

TEST_F(AdapterFile, AnIntegerTensorAndAnInfinityAreRefused) {
  edit_tensors(
      [](quant::NamedTensors& tensors) { tensors.back().second.view({-1})[3] = INFINITY; });
  expect_tensors_refused("infinite");
  edit_tensors([](quant::NamedTensors& tensors) {
    tensors.back().second = at::zeros(tensors.back().second.sizes(), at::kInt);
  });
  expect_tensors_refused("Int");
}

TEST_F(AdapterFile, ATruncatedFileIsRefused) {
  fs::resize_file(dir / kTensors, fs::file_size(dir / kTensors) - 1);
  expect_tensors_refused("");
}

// Paths are bytes, JSON is UTF-8.
TEST_F(AdapterFile, ABaseWhosePathIsNotUtf8IsRecordedByWhatCanBeReadOfIt) {
  base.name = base.path = "/models/\xff\xc3\xa9";
  base.made_from = "/\xfe";
  write_adapter(dir.path(), *written, tiny_options(), base);
  const auto record = read_adapter_base(dir.path());
  EXPECT_EQ(record->path, "/models/\xef\xbf\xbd\xc3\xa9");
  EXPECT_EQ(record->made_from, "/\xef\xbf\xbd");
  EXPECT_EQ(record->hash, base.hash);
  const auto config = nlohmann::json::parse(test::read_file(dir / kConfig));
  EXPECT_EQ(config.at("base_model_name_or_path"), record->name);
}

TEST_F(AdapterFile, AnImpossibleRecordOfTheBaseIsRefused) {
  auto record = nlohmann::json::parse(test::read_file(dir / "qlora_base.json"));
  record["quantization"]["block_size"] = 48;
  dir.write("qlora_base.json", record.dump());
  EXPECT_THAT([&] { read_adapter_base(dir.path()); },
              ThrowsMessage<Error>(HasSubstr("block_size")));
  record["quantization"]["block_size"] = 64;
  record.erase("compute_dtype");  // as older versions wrote it
  for (const char* key : {"made_from", "stored_by", "stored_as"}) record.erase(key);
  dir.write("qlora_base.json", record.dump());
  EXPECT_EQ(read_adapter_base(dir.path())->compute_dtype, "");
  EXPECT_EQ(read_adapter_base(dir.path())->made_from, "");
  record.erase("quantization");
  dir.write("qlora_base.json", record.dump());
  EXPECT_THROW(read_adapter_base(dir.path()), FormatError);
}

}  // namespace
}  // namespace qlora::lora
