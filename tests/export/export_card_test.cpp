#include "export/export_card.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qlora::exporting {
namespace {
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

const lora::AdapterBase kPlain{"org/name", "/home/me/cache/name", {}, "bfloat16", "0123"};

ExportCard card_as(const std::string& format, const std::string& type) {
  ExportCard card{.format = format, .type = type, .merge_base = ""};
  card.adapter = lora::LoraOptions();
  return card;
}

TEST(ExportCard, OfAModelWithoutAChatTemplateATextIsContinued) {
  ExportCard card = card_as("gguf", "f16");
  EXPECT_THAT(export_card(card, kPlain),
              AllOf(HasSubstr("\nqlora generate --model model.gguf --prompt TEXT --raw\n"),
                    Not(HasSubstr("qlora chat"))));
  card.has_template = true;
  EXPECT_THAT(export_card(card, kPlain), AllOf(HasSubstr("\nqlora chat --model model.gguf\n"),
                                               Not(HasSubstr("qlora generate"))));
}

TEST(ExportCard, BesideAnAdapterTheTemplateIsGivenToLlamaCpp) {
  ExportCard card = card_as("gguf-lora", "f32");
  EXPECT_THAT(export_card(card, kPlain), Not(HasSubstr("jinja")));
  card.has_template = true;
  EXPECT_THAT(export_card(card, kPlain),
              HasSubstr("\nllama-server -m base.gguf --lora adapter.gguf --jinja "
                        "--chat-template-file chat_template.jinja\n"));
}

TEST(ExportCard, WhatOllamaDoesOtherwiseStandsBesideItsCommands) {
  for (const char* format : {"gguf", "gguf-lora"}) {
    ExportCard card = card_as(format, "f16");
    EXPECT_THAT(export_card(card, kPlain), Not(HasSubstr("otherwise")));
    card.differences_of_ollama = {"It sings.", "It dances."};
    EXPECT_THAT(export_card(card, kPlain),
                HasSubstr("\nollama run my-model\n```\n\nWhat is otherwise there than in "
                          "training:\n\n- It sings.\n- It dances.\n"));
  }
}

TEST(ExportCard, OfAnAdapterForAChangedBaseThatBaseIsAskedFor) {
  const ExportCard card = card_as("gguf-lora", "f32");
  EXPECT_THAT(export_card(card, kPlain), Not(HasSubstr("started from")));
  lora::AdapterBase base = kPlain;
  base.init = "pissa";
  base.made_from = "org/name@abc";
  base.name = base.path = "/runs/a/base";
  EXPECT_THAT(export_card(card, base),
              AllOf(HasSubstr("# A LoRA adapter for org/name\n"),
                    HasSubstr("\n\nThe adapter started from a part of the weights of org/name "
                              "(pissa) and acts as it was trained only on what is left of them"),
                    HasSubstr("the directory `base`. That base belongs with the adapter"),
                    HasSubstr("On org/name itself the adapter is wrong.\n"),
                    HasSubstr("\nqlora export --model path/to/base --format gguf "),
                    Not(HasSubstr("/runs"))));
  base = kPlain;
  base.name = "org/name-4bit";
  base.init = "loftq";
  EXPECT_THAT(export_card(card, base),
              AllOf(HasSubstr("(loftq) and acts as it was trained only on this base, "
                              "`org/name-4bit`.\n"),
                    HasSubstr("\nqlora export --model org/name-4bit --format gguf ")));
  EXPECT_THAT(export_card(card_as("gguf", "f16"), base), Not(HasSubstr("started from")))
      << "it is merged into the base";
}

TEST(ExportCard, OfAnAdapterForAModelWithAnEncoderNoProgramIsNamedThatDoesNotRunIt) {
  ExportCard card = card_as("gguf-lora", "f32");
  EXPECT_THAT(export_card(card, kPlain),
              AllOf(HasSubstr("\nllama-cli -m base.gguf --lora adapter.gguf\n"),
                    HasSubstr("\nollama create my-model -f Modelfile\n")));
  card.has_encoder = true;
  EXPECT_THAT(
      export_card(card, kPlain),
      AllOf(HasSubstr("\nmv base-gguf/model.gguf base.gguf\n"), Not(HasSubstr("llama-cli")),
            Not(HasSubstr("llama-server")), Not(HasSubstr("ollama")), Not(HasSubstr("Ollama"))));
}

TEST(ExportCard, TheBaseIsOneWordOfTheCommandThatWritesIt) {
  lora::AdapterBase base = kPlain;
  for (const auto& [name, word] :
       {std::pair("a b\"c.gguf", "'path/to/a b\"c.gguf'"), std::pair("$(x)", "'path/to/$(x)'"),
        std::pair("a;b\n```", "'path/to/a;b ```'"), std::pair("llama", "path/to/llama")}) {
    base.name = base.path = std::string("/models/") + name;
    EXPECT_THAT(export_card(card_as("gguf-lora", "f32"), base),
                HasSubstr(std::string("\nqlora export --model ") + word + " --format gguf "));
  }
}

}  // namespace
}  // namespace qlora::exporting
