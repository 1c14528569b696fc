// The adapter export: what comes back from the directory, and what it does to a directory that is
// there already.
#include "export/adapter.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "export/model_card.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "tests/support/tiny_model.h"

namespace qlora::exporting {
namespace {
namespace fs = std::filesystem;
using test::TempDir;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

struct TinyAdapter {
  TempDir dir;
  std::unique_ptr<model::CausalLm> model = test::tiny_model();
  std::unique_ptr<lora::AdapterSet> adapters = test::tiny_adapters(*model, true);
  lora::LoraOptions options;
  lora::AdapterBase base{"tiny/base", "somewhere", {}, "bfloat16", "0123"};
  std::unique_ptr<data::Tokenizer> tokenizer;
  std::unique_ptr<data::ChatTemplate> chat_template;

  TinyAdapter() {
    options.rank = 4;
    options.alpha = 8;
    options.dropout = 0.25;
    test::write_tiny_directory(dir / "model");
    tokenizer = data::load_tokenizer(dir / "model");
  }
  void write(const std::string& directory) {
    write_adapter_directory(directory, *adapters, options, base, *tokenizer, chat_template.get());
  }
  // Of the test's own directory: no partial one may be among them.
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& entry : fs::directory_iterator(dir.path()))
      all.push_back(entry.path().filename());
    std::sort(all.begin(), all.end());
    return all;
  }
};

TEST(AdapterExport, GivesBackTheTrainedTensorsExactly) {
  TinyAdapter trained;
  trained.write(trained.dir / "adapter");
  const auto model = test::tiny_model();
  const auto reloaded = test::tiny_adapters(*model, false);
  ASSERT_FALSE(at::equal(reloaded->values(), trained.adapters->values()));
  lora::read_adapter_tensors(trained.dir / "adapter", *reloaded);
  EXPECT_TRUE(at::equal(reloaded->values(), trained.adapters->values()));
}

TEST(AdapterExport, GivesBackOptionsAndBase) {
  TinyAdapter trained;
  trained.base.quantization.method = "nf4";
  trained.base.quantization.block_size = 32;
  trained.write(trained.dir / "adapter");
  const lora::LoraOptions options = lora::read_adapter_options(trained.dir / "adapter");
  EXPECT_EQ(options.rank, 4);
  EXPECT_EQ(options.alpha, 8);
  EXPECT_EQ(options.dropout, 0.25);
  EXPECT_EQ(options.scaling(), 2.0);
  const auto base = lora::read_adapter_base(trained.dir / "adapter");
  ASSERT_TRUE(base.has_value());
  EXPECT_EQ(base->name, "tiny/base");
  EXPECT_EQ(base->hash, "0123");
  EXPECT_EQ(base->quantization.block_size, 32);
}

TEST(AdapterExport, ADirectoryOfSomethingElseIsRefusedAndLeftAsItWas) {
  TinyAdapter trained;
  trained.dir.write("adapter/thesis.txt", "precious");
  EXPECT_THROW(trained.write(trained.dir / "adapter"), ConfigError);
  EXPECT_EQ(test::read_file(trained.dir / "adapter/thesis.txt"), "precious");
  EXPECT_FALSE(fs::exists(trained.dir / "adapter/adapter_config.json"));
  EXPECT_EQ(trained.names(), (std::vector<std::string>{"adapter", "model"}));
}

TEST(AdapterExport, AnEarlierAdapterIsRefusedAndLeftAsItWas) {
  TinyAdapter trained;
  trained.write(trained.dir / "adapter");
  const at::Tensor before = trained.adapters->values().clone();
  at::Tensor values = trained.adapters->values();
  values.add_(1.0);
  EXPECT_THROW(trained.write(trained.dir / "adapter"), ConfigError);
  EXPECT_EQ(trained.names(), (std::vector<std::string>{"adapter", "model"}));
  const auto model = test::tiny_model();
  const auto reloaded = test::tiny_adapters(*model, false);
  lora::read_adapter_tensors(trained.dir / "adapter", *reloaded);
  EXPECT_TRUE(at::equal(reloaded->values(), before));
}

std::string card_of(const lora::AdapterBase& base, bool has_encoder = false) {
  return model_card(lora::LoraOptions(), base, has_encoder, "## Data\n");
}

TEST(ModelCard, AHubIdIsLoadedWithTheQuantizationOfTheTraining) {
  lora::AdapterBase base{"org/name@abc", "/home/me/cache/name", {}, "bfloat16", "0123"};
  base.quantization.method = "nf4";
  const std::string card = card_of(base);
  EXPECT_THAT(card, AllOf(HasSubstr("base_model: org/name\n"),
                          HasSubstr("from_pretrained(\"org/name\", revision=\"abc\", "),
                          HasSubstr("bnb_4bit_quant_type=\"nf4\""),
                          HasSubstr("bnb_4bit_use_double_quant=True"),
                          HasSubstr("llm_int8_skip_modules=[\"lm_head\"]"), HasSubstr("## Data")));
  EXPECT_THAT(card, Not(HasSubstr("/home")));
}

TEST(ModelCard, ProductsHaveTheTypeOfTheTrainingAndOtherModulesTheirs) {
  lora::AdapterBase base{"org/name", "/home/me/cache/name", {}, "float16", "0123"};
  base.quantization.method = "nf4";
  EXPECT_THAT(card_of(base), HasSubstr("bnb_4bit_compute_dtype=torch.float16,"));
  base.compute_dtype = "float32";
  EXPECT_THAT(card_of(base), AllOf(HasSubstr("bnb_4bit_compute_dtype=torch.float32,"),
                                   HasSubstr("quantization, dtype=torch.float16)")));
}

TEST(ModelCard, ABaseWithAnEncoderIsLoadedAsOneInEachForm) {
  lora::AdapterBase base{"org/name", "/home/me/cache/name", {}, "bfloat16", "0123"};
  EXPECT_THAT(card_of(base), AllOf(HasSubstr("pipeline_tag: text-generation\n"),
                                   HasSubstr("model = AutoModelForCausalLM.from_pretrained(")));
  std::vector<lora::AdapterBase> bases(5, base);
  bases[1].quantization.method = "nf4";
  bases[2].init = "loftq";
  bases[3].path = bases[3].name = "/home/me/t5.gguf";
  bases[4] = bases[3];
  bases[4].quantization.method = "nf4";
  for (const lora::AdapterBase& other : bases) {
    const std::string card = card_of(other, true);
    EXPECT_THAT(card, AllOf(HasSubstr("pipeline_tag: text2text-generation\n"),
                            HasSubstr("from transformers import AutoModelForSeq2SeqLM"),
                            HasSubstr("model = AutoModelForSeq2SeqLM.from_pretrained("),
                            Not(HasSubstr("CausalLM"))));
  }
}

TEST(ModelCard, AGgufFileIsNamedWithoutItsPlace) {
  lora::AdapterBase base{"/home/me/m.Q4_1.gguf", "/home/me/m.Q4_1.gguf", {}, "bfloat16", "0123"};
  EXPECT_THAT(card_of(base), HasSubstr("gguf_file=\"m.Q4_1.gguf\""));
  base.quantization.method = "nf4";
  base.quantization.double_quant = false;
  base.quantization.block_size = 128;
  const std::string card = card_of(base);
  EXPECT_THAT(card, AllOf(HasSubstr("qlora quantize --model m.Q4_1.gguf --method nf4 --dtype "
                                    "bfloat16 --output base --no-double-quant --block-size 128"),
                          HasSubstr("from_pretrained(\"base\""), Not(HasSubstr("base_model:")),
                          Not(HasSubstr("/home"))));
}

TEST(ModelCard, NamesAreWordsOfTheShellTextsOfPythonAndOnOneLineInHeadings) {
  lora::AdapterBase base{"/models/a b\"c.gguf", "/models/a b\"c.gguf", {}, "bfloat16", "0123"};
  base.quantization.method = "nf4";
  base.quantization.skip_modules = {"lm_head", "$(x)"};
  EXPECT_THAT(card_of(base),
              AllOf(HasSubstr("\nqlora quantize --model 'a b\"c.gguf' --method nf4 "),
                    HasSubstr(" --skip-modules lm_head '$(x)'\n"),
                    HasSubstr("`from_pretrained(\"directory/of/the/file\", "
                              "gguf_file=\"a b\\\"c.gguf\")`")));
  base.name = base.path = "/models/$(x)`\n\"";
  EXPECT_THAT(card_of(base), AllOf(HasSubstr("\n# A LoRA adapter for $(x)\\` \"\n\n"),
                                   HasSubstr("from_pretrained(\"path/to/$(x)`\\n\\\"\", quant"),
                                   HasSubstr("llm_int8_skip_modules=[\"lm_head\", \"$(x)\"]"),
                                   HasSubstr("where ``$(x)` \"`` lies, or to its hub id")));
}

TEST(ModelCard, AGgufFileOfTheHubIsCalledByItsIdWhateverTheBaseIsNamed) {
  const std::string path = "/home/me/hub/models--org--name-GGUF/snapshots/abc/q4/m.Q4_1.gguf";
  lora::AdapterBase base{"org/name-GGUF@abc", path, {}, "bfloat16", "0123"};
  const char* call =
      "from_pretrained(\"org/name-GGUF\", revision=\"abc\", gguf_file=\"q4/m.Q4_1.gguf\"";
  EXPECT_THAT(card_of(base), AllOf(HasSubstr(call), HasSubstr("base_model: org/name-GGUF\n")));
  base.name = "org/name";
  base.quantization.method = "nf4";
  EXPECT_THAT(card_of(base),
              AllOf(HasSubstr(call), HasSubstr("base_model: org/name\n"),
                    HasSubstr("hf download org/name-GGUF q4/m.Q4_1.gguf --revision abc "
                              "--local-dir .\nqlora quantize --model q4/m.Q4_1.gguf "),
                    Not(HasSubstr("/home"))));
}

TEST(ModelCard, ABaseThatTheRunWroteIsAskedFor) {
  lora::AdapterBase base{"/runs/a/base", "/runs/a/base", {}, "bfloat16", "0123"};
  base.quantization.method = "nf4";
  base.init = "loftq";
  base.made_from = "org/name@abc";
  EXPECT_THAT(
      card_of(base),
      AllOf(HasSubstr("base_model: org/name\n"), HasSubstr("# A LoRA adapter for org/name\n"),
            HasSubstr("weights of org/name (loftq)"), HasSubstr("the directory `base`"),
            HasSubstr("belongs with the adapter"), HasSubstr("\"path/to/base\", dtype"),
            Not(HasSubstr("/runs"))));
  base.init = "";
  EXPECT_THAT(card_of(base), HasSubstr("started from a part of the weights of org/name and acts"));
  base.made_from = "/models/of-mine";
  EXPECT_THAT(card_of(base), AllOf(HasSubstr("# A LoRA adapter for of-mine\n"),
                                   Not(HasSubstr("base_model:")), Not(HasSubstr("/models"))));
  base.init = "default";  // output.save_base
  EXPECT_THAT(card_of(base), AllOf(HasSubstr("wrote of-mine"), HasSubstr("\"path/to/base\", dtype"),
                                   Not(HasSubstr("a part of"))));
}

TEST(ModelCard, OfLoftqOnAQuantizedModelTheBaseIsThatModel) {
  lora::AdapterBase base{"org/name-4bit", "/home/me/cache/name", {}, "bfloat16", "0123"};
  base.init = "loftq";
  EXPECT_THAT(card_of(base),
              AllOf(HasSubstr("only on this base, `org/name-4bit`"),
                    HasSubstr("from_pretrained(\"org/name-4bit\", dtype=torch.bfloat16)")));
}

TEST(ModelCard, OfABaseLessAPartTheReasonMayBeUnknown) {
  lora::AdapterBase base{"/runs/a/base", "/runs/a/base", {}, "bfloat16", "0123"};
  base.init = "";
  EXPECT_THAT(card_of(base), HasSubstr("from a part of the base's weights and acts as it was "
                                       "trained only on this base, `base`"));
}

TEST(ModelCard, ABaseThatWasQuantizedAlreadyIsNamedByItsKindWithThePackagesThatLoadIt) {
  lora::AdapterBase base{"org/name-GPTQ", "/home/me/cache/name", {}, "float16", "0123"};
  base.stored_by = "gptq";
  base.stored_as = "GPTQ, 4 bit, groups of 32";
  EXPECT_THAT(card_of(base),
              AllOf(HasSubstr("The base was quantized already, GPTQ, 4 bit, groups of 32, and"),
                    HasSubstr("\npip install torch transformers peft optimum gptqmodel\n"),
                    HasSubstr("from_pretrained(\"org/name-GPTQ\", dtype=torch.float16)"),
                    Not(HasSubstr("as stored"))));
}

TEST(ModelCard, ThatAModelWasQuantizedAlreadyIsNotSaidOfABaseThatARunWrote) {
  lora::AdapterBase base{"/runs/a/base", "/runs/a/base", {}, "float16", "0123"};
  base.stored_by = "bitsandbytes";
  base.stored_as = "bitsandbytes nf4";
  base.made_from = "org/name";
  EXPECT_THAT(card_of(base),
              AllOf(HasSubstr(" The base was quantized in the training, bitsandbytes nf4; what was "
                              "not quantized was in float16.\n"),
                    Not(HasSubstr("already"))));
}

TEST(ModelCard, SaysInASentenceHowTheBaseWasHeld) {
  lora::AdapterBase base{"org/name", "/home/me/cache/name", {}, "float32", "0123"};
  for (const char* method : {"none", "as_stored"}) {
    base.quantization.method = method;
    EXPECT_THAT(card_of(base), HasSubstr(". The base was not quantized; it was in float32.\n"));
  }
  base.stored_as = "GGUF, Q4_1";
  base.quantization.method = "none";
  EXPECT_THAT(card_of(base),
              HasSubstr("decoded from quantized files, GGUF, Q4_1, and was in float32."));
  base.quantization.method = "nf4";
  EXPECT_THAT(card_of(base),
              HasSubstr("The base was quantized for the training: nf4, block size 64"));
}

TEST(ModelCard, NamesThePackagesForEveryBase) {
  lora::AdapterBase base{"org/name", "/home/me/cache/name", {}, "float16", "0123"};
  const auto installs = [&base](const std::string& packages) {
    return HasSubstr("\npip install torch transformers peft" + packages + "\n");
  };
  EXPECT_THAT(card_of(base), installs(""));
  base.stored_by = "awq";
  EXPECT_THAT(card_of(base), installs(" gptqmodel"));
  base.stored_by = "compressed-tensors";
  EXPECT_THAT(card_of(base), installs(" \"compressed-tensors>=0.15.0\""));
  base.stored_by = "gguf";
  base.path = base.name = "/home/me/m.gguf";
  EXPECT_THAT(card_of(base), installs(" \"gguf>=0.10.0\""));
  base.stored_by = "";  // its matrices are in 16 bits
  EXPECT_THAT(card_of(base), installs(" \"gguf>=0.10.0\""));
  base.quantization.method = "nf4";
  EXPECT_THAT(card_of(base), installs(" bitsandbytes"));
}

TEST(ModelCard, TellsWhatToSetForCallsThatFindTheBaseThemselves) {
  const std::string key = "`base_model_name_or_path` in `adapter_config.json`. Set that to ";
  lora::AdapterBase base{"org/name", "/home/me/cache/name", {}, "float16", "0123"};
  EXPECT_THAT(card_of(base), Not(HasSubstr("base_model_name_or_path")));
  base.name = base.path = "/models/llama";
  EXPECT_THAT(card_of(base), AllOf(HasSubstr("`AutoPeftModelForCausalLM.from_pretrained`"),
                                   HasSubstr(key + "where `llama` lies, or to its hub id,")));
  EXPECT_THAT(card_of(base, true), HasSubstr("`AutoPeftModelForSeq2SeqLM.from_pretrained`"));
  base.name = base.path = "/models/m.gguf";
  EXPECT_THAT(card_of(base),
              HasSubstr(key + "the directory of the file, or to its hub id, and give "
                              "the call gguf_file=\"m.gguf\","));
  base.quantization.method = "nf4";
  EXPECT_THAT(card_of(base), HasSubstr(key + "where the directory `base` lies,"));
}

TEST(ModelCard, EightBitsAreLoadedWithTheirThreshold) {
  lora::AdapterBase base{"/models/m/", "/models/m/", {}, "float16", "0123"};
  base.quantization.method = "int8";
  base.quantization.threshold = 5;
  EXPECT_THAT(card_of(base),
              AllOf(HasSubstr("load_in_8bit=True"), HasSubstr("llm_int8_threshold=5.0"),
                    HasSubstr("\"path/to/m\", quantization_config=quantization"),
                    HasSubstr("dtype=torch.float16"), Not(HasSubstr("/models"))));
}

}  // namespace
}  // namespace qlora::exporting
