// Exports to GGUF: what is written is read again by the program's own reader, which other tools'
// files are tested with.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "export/gguf_adapter.h"
#include "export/gguf_model.h"
#include "export/modelfile.h"
#include "io/gguf.h"
#include "io/json.h"
#include "model/families/family.h"
#include "model/gguf_description.h"
#include "model/load.h"
#include "model/made_weights.h"
#include "recipes/exports/export_gguf.h"
#include "tests/support/chat_ml.h"
#include "tests/support/small_models.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "tests/support/tiny_model.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using test::TempDir;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::ThrowsMessage;

class GgufExport : public testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_directory(dir / "model");
    trained = open_model(choice(dir / "model"));
    attach({});
  }
  void attach(lora::LoraOptions options) {
    options.rank = 4;
    options.alpha = 8;
    trained.recipe.lora = options;
    trained.adapters = std::make_unique<lora::AdapterSet>(options, trained.base.model->parts(),
                                                          trained.base.model->compute_dtype(), 1);
    at::NoGradGuard no_grad;
    at::Tensor values = trained.adapters->values();
    values.add_(at::sin(at::arange(values.numel(), at::kFloat)), 0.05);
    trained.adapters->publish();
  }
  static ModelChoice choice(const std::string& path) {
    ModelChoice chosen;
    chosen.compute_dtype = "float32";
    chosen.model = path;
    chosen.device = "cpu";
    chosen.threads = 2;
    return chosen;
  }
  ExportOptions options(const std::string& type, const std::string& format = "gguf") const {
    ExportOptions options{.format = format, .output = dir / "out"};
    options.type = type;
    return options;
  }

  TempDir dir;
  TrainedModel trained;
};

TEST_F(GgufExport, AnF32FileIsTheTrainedModel) {
  const auto agreement = export_model(trained, options("f32"));
  EXPECT_EQ(agreement.top1, 1.0);
  EXPECT_LT(agreement.largest_difference, 1e-4);  // sums of fp32 products in another order
  const auto report = nlohmann::json::parse(test::read_file(dir / "out/verification.json"));
  EXPECT_EQ(report["type"], "f32");
  EXPECT_FALSE(report.contains("dtype"));
}

TEST_F(GgufExport, ItsTokenizerMakesTheSameIdsAndHasTheTemplate) {
  export_model(trained, options("f16"));
  const auto found = data::load_tokenizer(dir / "out/model.gguf");
  const data::Tokenizer& own = *trained.base.tokenizer;
  for (const char* text : {"Two words, 12.5 é!", "<|im_start|>user\n  x<|im_end|>", ""})
    EXPECT_EQ(found->encode(text, true), own.encode(text, true)) << text;
  EXPECT_EQ(found->chat_template(), own.chat_template());
  EXPECT_EQ(found->special_tokens().end_of_generation, own.special_tokens().end_of_generation);
}

// Rows of 32 fit no block of 256.
TEST_F(GgufExport, TypesAreAsAskedOrTheNextThatFits) {
  export_model(trained, options("q4_k_m"));
  const io::GgufFile file(dir / "out/model.gguf");
  EXPECT_EQ(file.integer("general.file_type", 0, 99), 15);
  EXPECT_EQ(file.find("blk.0.attn_q.weight")->dtype, io::DType::kQ5_0);
  EXPECT_EQ(file.find("token_embd.weight")->dtype, io::DType::kQ8_0);  // the head, too
  EXPECT_EQ(file.find("blk.0.attn_norm.weight")->dtype, io::DType::kF32);
  EXPECT_EQ(file.find("output.weight"), nullptr);
}

// Rows of 32, and of 48 in the MLPs' second matrices.
TEST_F(GgufExport, HowManyMatricesHaveAnotherTypeThanAskedIsSaidAndWritten) {
  const auto said = [&](const char* type) {
    fs::remove_all(dir / "out");
    testing::internal::CaptureStderr();
    export_model(trained, options(type));
    return testing::internal::GetCapturedStderr();
  };
  const std::string mixed = said("q4_k_m");
  const io::GgufFile file(dir / "out/model.gguf");
  std::map<std::string, int64_t> counted;
  int64_t matrices = 0;
  for (const io::TensorView& tensor : file.tensors())
    if (tensor.dtype != io::DType::kF32) {
      ++counted[io::dtype_name(tensor.dtype)];
      ++matrices;
    }
  const std::string sentence = fmt::format(
      "Of {0} matrices {0} have another type than q4_k_m gives them, for their rows are no "
      "multiple of 256 weights (llama.cpp does the same): {1} F16, {2} Q5_0, {3} Q8_0.",
      matrices, counted["F16"], counted["Q5_0"], counted["Q8_0"]);
  EXPECT_EQ(counted.size(), 3u);
  EXPECT_THAT(mixed, HasSubstr(sentence));
  EXPECT_THAT(test::read_file(dir / "out/README.md"), HasSubstr(sentence));
  EXPECT_THAT(said("f16"), Not(HasSubstr("another type")));
  EXPECT_THAT(test::read_file(dir / "out/README.md"), Not(HasSubstr("another type")));
  EXPECT_THAT(said("q8_0"), HasSubstr("are no multiple of 32 weights (llama.cpp does the same): 2 "
                                      "F16."));
}

TEST_F(GgufExport, EveryTypeIsWrittenAndReadAgain) {
  double kl_of_8_bits = 0;
  for (const char* type : {"bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "q5_k_m", "q6_k"}) {
    fs::remove_all(dir / "out");
    const auto agreement = export_model(trained, options(type));
    EXPECT_LT(agreement.kl_mean, 1) << type;
    if (type == std::string("q8_0")) kl_of_8_bits = agreement.kl_mean;
  }
  fs::remove_all(dir / "out");
  EXPECT_LT(kl_of_8_bits, export_model(trained, options("q4_0")).kl_mean);
}

TEST_F(GgufExport, AGgufBaseIsWrittenAsItWas) {
  test::write_tiny_gguf(dir / "base.gguf");
  trained = open_model(choice(dir / "base.gguf"));
  EXPECT_LT(export_model(trained, options("f32")).largest_difference, 1e-5);
  const io::GgufFile wanted(dir / "base.gguf"), found(dir / "out/model.gguf");
  ASSERT_EQ(found.tensors().size(), wanted.tensors().size());
  for (const io::TensorView& tensor : wanted.tensors()) {
    const io::TensorView* other = found.find(tensor.name);
    ASSERT_NE(other, nullptr) << tensor.name;
    EXPECT_TRUE(std::ranges::equal(other->bytes, tensor.bytes)) << tensor.name;
  }
  for (const auto& [key, value] : wanted.metadata()) {
    if (key == "general.architecture" || key.starts_with("tokenizer.ggml.eos")) continue;
    ASSERT_TRUE(found.has(key)) << key;
    EXPECT_EQ(found.metadata().at(key), value) << key;
  }
}

TEST_F(GgufExport, ModelAndAdapterNameTheModelThatTheyWereMadeOf) {
  trained.base.record.name = "org/name@v1.0";
  export_model(trained, options("f32", "gguf-lora"));
  fs::rename(dir / "out", dir / "lora");
  export_model(trained, options("f32"));
  for (const char* path : {"lora/adapter.gguf", "out/model.gguf"}) {
    const io::GgufFile file(dir / path);
    EXPECT_EQ(file.text("general.name"), "name") << path;
    EXPECT_EQ(file.text("general.base_model.0.version"), "v1.0") << path;
  }
}

TEST_F(GgufExport, TheCardSaysWhatItIsAndHowLlamaCppAndOllamaTakeIt) {
  trained.base.record.name = "org/name@v1.0";
  export_model(trained, options("q8_0"));
  EXPECT_THAT(
      test::read_file(dir / "out/README.md"),
      AllOf(HasSubstr("base_model: org/name\n"), HasSubstr("# org/name, fine-tuned\n"),
            HasSubstr("a GGUF file of type q8_0, with a LoRA adapter"),
            HasSubstr("rank 4 and alpha 8"), HasSubstr("\nllama-cli -m model.gguf\n"),
            HasSubstr("\nollama create my-model -f Modelfile\n"), Not(HasSubstr(dir.path()))));
  fs::remove_all(dir / "out");
  export_model(trained, options("", "gguf-lora"));
  EXPECT_THAT(
      test::read_file(dir / "out/README.md"),
      AllOf(HasSubstr("# A LoRA adapter for org/name\n"), HasSubstr("of type f32, of rank 4"),
            HasSubstr("qlora export --model org/name@v1.0 --format gguf --output base-gguf\n"),
            HasSubstr("llama-cli -m base.gguf --lora adapter.gguf\n"), Not(HasSubstr(dir.path()))));
  fs::remove_all(dir / "out");
  trained = open_model(choice(dir / "model"));
  trained.base.record.name = "org/name";
  export_model(trained, options("f16"));
  EXPECT_THAT(
      test::read_file(dir / "out/README.md"),
      AllOf(HasSubstr("# org/name\n\nThe model org/name as a GGUF file of type f16, without"),
            Not(HasSubstr("rank"))));
}

TEST_F(GgufExport, OtherTypesAndOptionsThatDoNotGoTogetherAreRefused) {
  const auto refused = [&](const ExportOptions& options, const char* named) {
    EXPECT_THAT([&] { export_model(trained, options); },
                ThrowsMessage<ConfigError>(HasSubstr(named)));
    EXPECT_FALSE(fs::exists(dir / "out"));
  };
  refused(options("q2_k"), "q2_k");
  refused(options("q8_0", "merged"), "--type");
  refused(options("q8_0", "gguf-lora"), "--type");
}

TEST_F(GgufExport, AnAdapterIsReadAgainBitForBit) {
  const at::Tensor kept = trained.adapters->values().clone();
  EXPECT_EQ(export_model(trained, options("", "gguf-lora")).largest_difference, 0.0);
  EXPECT_TRUE(at::equal(trained.adapters->values(), kept));
  const io::GgufFile file(dir / "out/adapter.gguf");
  EXPECT_EQ(file.text("general.type"), "adapter");
  EXPECT_EQ(file.text("adapter.type"), "lora");
  EXPECT_EQ(file.text("general.architecture"), "llama");
  EXPECT_EQ(file.number("adapter.lora.alpha"), 8.0);
  EXPECT_EQ(file.tensors().size(), 2 * 14u);
  EXPECT_THAT(test::read_file(dir / "out/Modelfile"),
              HasSubstr("# the base as a GGUF file, or its name in Ollama's library\n"
                        "FROM ./base.gguf\nADAPTER ./adapter.gguf\n"));
}

// The base's file has the base's.
TEST_F(GgufExport, BesideAnAdapterLiesTheTemplateThatItWasTrainedWith) {
  trained.base.chat_template = std::make_unique<data::ChatTemplate>(
      "{% for m in messages %}{{ loop.index }}, {{ m.content }}\n{% endfor %}");
  testing::internal::CaptureStderr();
  export_model(trained, options("", "gguf-lora"));
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("Ollama then goes by that of base.gguf"));
  EXPECT_EQ(test::read_file(dir / "out/chat_template.jinja"), trained.base.chat_template->source());
  EXPECT_THAT(test::read_file(dir / "out/README.md"), HasSubstr("chat_template.jinja"));
  fs::remove_all(dir / "out");
  trained.base.chat_template = nullptr;
  export_model(trained, options("", "gguf-lora"));
  EXPECT_FALSE(fs::exists(dir / "out/chat_template.jinja"));
}

// llama.cpp knows no rsLoRA: its factor is alpha over rank.
TEST_F(GgufExport, TheAlphaOfRsLoraGivesItsScalingOverTheRank) {
  lora::LoraOptions rslora;
  rslora.use_rslora = true;
  trained = open_model(choice(dir / "model"));
  attach(rslora);
  export_model(trained, options("f32", "gguf-lora"));
  const io::GgufFile file(dir / "out/adapter.gguf");
  EXPECT_EQ(file.number("adapter.lora.alpha") / 4, 8 / std::sqrt(4.0));  // rank 4, alpha 8
}

// Row 2i of B in the file is row i of a head, row 2i + 1 its row i + head_dim / 2; A stays.
TEST_F(GgufExport, RowsOfBAreInTheOrderOfTheWeights) {
  export_model(trained, options("f32", "gguf-lora"));
  const io::GgufFile file(dir / "out/adapter.gguf");
  const lora::LoraLinear& q = trained.base.model->layers[0].branches[0].in.layers()[0];
  const int64_t rank = q.adapter->rank;
  const auto* b = q.adapter->b.const_data_ptr<float>();
  const io::TensorView& view = *file.find("blk.0.attn_q.weight.lora_b");
  std::vector<float> found(static_cast<size_t>(view.num_elements()));
  std::memcpy(found.data(), view.bytes.data(), view.bytes.size());
  for (const int64_t i : {0, 1, 3})
    for (int64_t r = 0; r < rank; ++r) {
      EXPECT_EQ(found[static_cast<size_t>(2 * i * rank + r)], b[i * rank + r]);
      EXPECT_EQ(found[static_cast<size_t>((2 * i + 1) * rank + r)], b[(i + 4) * rank + r]);
    }
}

TEST_F(GgufExport, AdaptersThatSuchAFileCannotHoldAreRefusedWithAHint) {
  const auto refused = [&](const lora::LoraOptions& lora, const char* named) {
    trained = open_model(choice(dir / "model"));
    attach(lora);
    EXPECT_THAT([&] { export_model(trained, options("f32", "gguf-lora")); },
                ThrowsMessage<ConfigError>(AllOf(HasSubstr(named), HasSubstr("--format gguf"))));
    EXPECT_FALSE(fs::exists(dir / "out"));
  };
  lora::LoraOptions dora, saved, rows, alphas;
  dora.use_dora = true;
  refused(dora, "magnitude");
  saved.modules_to_save = {"norm"};
  refused(saved, "norm");
  rows.trainable_token_indices["embed_tokens"] = {3};
  refused(rows, "embed_tokens");
  alphas.alpha_pattern["q_proj"] = 3;
  refused(alphas, "alpha");
  // Other ranks with the same alpha are one alpha.
  lora::LoraOptions ranks;
  ranks.rank_pattern["q_proj"] = 2;
  trained = open_model(choice(dir / "model"));
  attach(ranks);
  EXPECT_EQ(export_model(trained, options("f32", "gguf-lora")).largest_difference, 0.0);
}

TEST_F(GgufExport, TheModelfileHasTheTemplateAndWhereAnswersEnd) {
  export_model(trained, options("q8_0"));
  EXPECT_EQ(test::read_file(dir / "out/Modelfile"),
            "FROM ./model.gguf\n"
            "TEMPLATE \"\"\"{{ range .Messages }}<|im_start|>{{ .Role }}\n"
            "{{ .Content }}<|im_end|>\n"
            "{{ end }}<|im_start|>assistant\n"
            "\"\"\"\n"
            "PARAMETER stop \"<|im_end|>\"\n");
  const data::ChatTemplate other("{% for m in messages %}{{ m.content | upper }}{% endfor %}");
  EXPECT_THAT(exporting::modelfile("FROM x\n", *trained.base.tokenizer, &other).text,
              Not(HasSubstr("TEMPLATE")));
}

TEST_F(GgufExport, AModelfileWithoutATemplateIsToldUnlessTheModelHasNone) {
  const auto said = [&] {
    fs::remove_all(dir / "out");
    testing::internal::CaptureStderr();
    export_model(trained, options("f16"));
    return testing::internal::GetCapturedStderr();
  };
  const auto card = [&] { return test::read_file(dir / "out/README.md"); };
  EXPECT_THAT(said(), Not(HasSubstr("TEMPLATE")));
  EXPECT_THAT(card(), Not(HasSubstr("TEMPLATE")));
  trained.base.chat_template = nullptr;
  EXPECT_THAT(said(), Not(HasSubstr("TEMPLATE")));
  EXPECT_THAT(card(), Not(HasSubstr("TEMPLATE")));
  trained.base.chat_template = std::make_unique<data::ChatTemplate>(
      "{% for m in messages %}{{ loop.index }}: {{ m.content }}\n{% endfor %}");
  EXPECT_THAT(said(), HasSubstr("Modelfile has no TEMPLATE"));
  EXPECT_THAT(card(), HasSubstr("\n- `Modelfile` has no `TEMPLATE`"));
  EXPECT_THAT(test::read_file(dir / "out/Modelfile"),
              AllOf(HasSubstr("FROM ./model.gguf"), Not(HasSubstr("TEMPLATE"))));
}

// As SmolLM2's and Qwen's: Ollama would leave the message out.
TEST_F(GgufExport, TheModelfileHasTheSystemMessageThatTheTemplateWrites) {
  const std::string rest = test::kChatMl;
  const auto written = [&](const std::string& own) {
    const data::ChatTemplate chat_template(
        "{% if messages[0].role != 'system' %}<|im_start|>system\n" + own +
        "<|im_end|>\n{% endif %}" + rest);
    return exporting::modelfile("FROM x\n", *trained.base.tokenizer, &chat_template).text;
  };
  EXPECT_EQ(written("You are Zo\u00EB,\nand kind."),
            "FROM x\n"
            "TEMPLATE \"\"\"{{ range .Messages }}<|im_start|>{{ .Role }}\n"
            "{{ .Content }}<|im_end|>\n"
            "{{ end }}<|im_start|>assistant\n"
            "\"\"\"\n"
            "SYSTEM \"\"\"You are Zo\u00EB,\nand kind.\"\"\"\n"
            "PARAMETER stop \"<|im_end|>\"\n");
  EXPECT_THAT(written("Say \"\"\"no\"\"\"."),
              AllOf(HasSubstr("TEMPLATE"), Not(HasSubstr("SYSTEM"))));
  EXPECT_THAT(written("Today is {{ strftime_now('%Y') }}."), Not(HasSubstr("SYSTEM")));
  const data::ChatTemplate plain(rest);
  EXPECT_THAT(exporting::modelfile("FROM x\n", *trained.base.tokenizer, &plain).text,
              AllOf(HasSubstr("TEMPLATE"), Not(HasSubstr("SYSTEM"))));
}

TEST_F(GgufExport, ABaseThatCannotBeWrittenIsRefusedByNameBeforeItIsLoaded) {
  test::small_opt().write(dir / "opt");
  EXPECT_NO_THROW(require_gguf_base(choice(dir / "model")));
  EXPECT_THAT([&] { require_gguf_base(choice(dir / "opt")); },
              ThrowsMessage<ConfigError>(HasSubstr("opt")));
  const auto refused = [](const nlohmann::json& config, const char* named, const char* what) {
    EXPECT_THAT([&] { model::describe_for_gguf(test::described(config)); },
                ThrowsMessage<ConfigError>(AllOf(HasSubstr(named), HasSubstr(what))));
  };
  refused({{"model_type", "opt"}, {"dropout", 0.0}}, "opt", "--format merged");
  refused({{"model_type", "opt"}, {"dropout", 0.0}}, "opt", "llama.cpp does not run");
  refused({{"model_type", "gptj"}, {"n_layer", 2}}, "gptj", "--format merged");
  refused({{"model_type", "gemma2"}, {"query_pre_attn_scalar", 144}}, "gemma2",
          "the scale of scores");
  refused({{"model_type", "llama"}, {"rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2.0}}}},
          "llama", "RoPE's scaling");
  refused({{"model_type", "smollm3"}, {"no_rope_layer_interval", 3}}, "smollm3",
          "whether heads are rotated");
}

TEST(GgufDescription, AWindowThatTheArchitectureDoesNotKnowShortensTheContext) {
  const model::Architecture a = test::described(
      {{"model_type", "mistral"}, {"sliding_window", 64}, {"max_position_embeddings", 256}});
  const model::GgufDescription found = model::describe_for_gguf(a);
  EXPECT_EQ(found.architecture, "llama");
  EXPECT_EQ(found.model.max_positions, 64);
}

// What a model says to a few tokens.
at::Tensor logits_of(model::CausalLm& model, int count) {
  at::NoGradGuard no_grad;
  model::ForwardInput input;
  for (int i = 0; i < count; ++i) {
    input.tokens.push_back(i * 37 % 250);
    input.positions.push_back(i);
  }
  input.cu_seqlens = {0, count};
  if (model.architecture().has_encoder())
    input.source = {{input.tokens.rbegin(), input.tokens.rend()}, input.cu_seqlens};
  return model.logits(model.hidden(input));
}

// Made weights repeat their rows, and have norms of ones and biases of zeros: each number becomes
// another one.
void tell_apart(model::CausalLm& model) {
  at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : model.frozen_state())
    at::Tensor(tensor).add_(
        at::sin(at::arange(tensor.numel(), at::kFloat).mul_(1.7)).view(tensor.sizes()),
        tensor.dim() == 1 ? 0.1 : 0.02);
}

void expect_same_from_gguf(const std::string& name, const model::Architecture& architecture,
                           const data::Tokenizer& tokenizer, const TempDir& dir) {
  const auto made = model::made_weights(architecture);
  model::ModelOptions options;
  options.dtype = "float32";
  quant::QuantizationOptions none;
  none.method = "none";
  const auto model = model::load_model(*made, options, none, at::kCPU, at::kFloat);
  tell_apart(*model);
  const std::string path = dir / "family.gguf";
  exporting::write_gguf_model(path, *model, tokenizer, nullptr, name, exporting::gguf_type("f32"));
  const auto source = model::open_weights(path);
  const auto found = model::load_model(*source, options, none, at::kCPU, at::kFloat);
  EXPECT_THAT(source->unread(), IsEmpty()) << name;
  // Within the context, which a window may have shortened.
  const int count = static_cast<int>(std::min<int64_t>(20, found->architecture().max_positions));
  const at::Tensor wanted = logits_of(*model, count);
  EXPECT_LT((logits_of(*found, count) - wanted).abs().max().item<double>(),
            1e-4 * std::max(1.0, wanted.abs().max().item<double>()))
      << name;
}

// Every variant of every family: either it says the same from its GGUF file, or it is refused by
// its name.
TEST(GgufFamilies, EachSaysTheSameFromItsFileOrIsRefused) {
  const TempDir dir;
  test::write_tiny_directory(dir / "model");
  const auto tokenizer = data::load_tokenizer(dir / "model");
  const auto all =
      nlohmann::json::parse(test::read_file(QLORA_SOURCE_DIR "/tests/data/families.json"));
  std::vector<std::pair<std::string, nlohmann::json>> models;
  for (const auto& entry : all["models"]) {
    models.emplace_back(entry["name"], entry["config"]);
    if (entry["config"]["model_type"] != "gpt_oss") continue;
    // The format has no place for another limit and other ramps than those of the real models.
    nlohmann::json config = entry["config"];
    config["swiglu_limit"] = 7.0;
    config["rope_parameters"]["beta_fast"] = 32.0;
    config["rope_parameters"]["beta_slow"] = 1.0;
    models.emplace_back("gpt_oss, as published", config);
  }
  std::set<std::string> written;
  for (const auto& [name, config] : models) {
    const model::Architecture a = model::read_architecture(io::JsonNode(config, name));
    try {
      expect_same_from_gguf(name, a, *tokenizer, dir);
      written.insert(a.family);
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr(a.family)) << name;
    }
  }
  for (const char* family :
       {"llama",      "mistral", "mixtral", "qwen2",     "qwen3",    "gemma", "gemma2",
        "gemma3",     "phi3",    "phi",     "smollm3",   "granite",  "olmo",  "olmo2",
        "starcoder2", "cohere",  "falcon",  "gpt2",      "gpt_neox", "bloom", "mpt",
        "stablelm",   "glm",     "glm4",    "qwen3_moe", "gpt_oss",  "arcee", "t5"})
    EXPECT_TRUE(written.contains(family)) << family;
}

}  // namespace
}  // namespace qlora::recipes
