// Models that are known by name, and what is said of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/families/family.h"
#include "model/families/later_families.h"
#include "tests/support/read_config.h"

namespace qlora::model {
namespace {
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::ThrowsMessage;

TEST(LaterFamilies, ARefusalSaysWhatTheModelNeeds) {
  const std::pair<const char*, const char*> needs[] = {
      {"deepseek_v3", "multi-head latent attention"},
      {"deepseek_v2", "multi-head latent attention"},
      {"gemma3n_text", "AltUp"},
      {"gemma4_text", "heads whose size differs by layer"},
      {"qwen3_next", "gated delta rule"},
      {"qwen3_5_text", "gated delta rule"},
      {"granitemoehybrid", "state-space layers"},
      {"lfm2", "convolution"},
      {"llama4_text", "attention within chunks"}};
  for (const auto& [type, missing] : needs)
    EXPECT_THAT(test::said_of({{"model_type", type}}),
                AllOf(HasSubstr("config.json"), HasSubstr("'" + std::string(type) + "'"),
                      HasSubstr(missing), Not(HasSubstr("this version knows"))));
}

TEST(LaterFamilies, TheTextModelWithinAMultimodalOneIsNamed) {
  EXPECT_THAT(test::said_of({{"model_type", "llama4"},
                             {"text_config", {{"model_type", "llama4_text"}}},
                             {"vision_config", {{"hidden_size", 8}}}}),
              AllOf(HasSubstr("config.json.text_config"), HasSubstr("'llama4_text'"),
                    HasSubstr("attention within chunks")));
}

TEST(LaterFamilies, GgufArchitecturesAreRefusedWithTheSameSentence) {
  EXPECT_THAT(
      [] { family_of_gguf("deepseek2", "model.gguf"); },
      ThrowsMessage<FormatError>(AllOf(HasSubstr("model.gguf: the architecture 'deepseek2'"),
                                       HasSubstr(missing_for_model_type("deepseek_v3")))));
  EXPECT_THAT([] { family_of_gguf("qwen3next", "model.gguf"); },
              ThrowsMessage<FormatError>(HasSubstr("gated delta rule")));
}

TEST(LaterFamilies, NoFamilyThatIsReadIsAmongThem) {
  for (const Family& family : families()) {
    for (const std::string& type : family.model_types)
      EXPECT_EQ(missing_for_model_type(type), "") << type;
    for (const std::string& architecture : family.gguf_architectures)
      EXPECT_EQ(missing_for_gguf(architecture), "") << architecture;
  }
  EXPECT_EQ(missing_for_model_type("gpt99"), "");
}

}  // namespace
}  // namespace qlora::model
