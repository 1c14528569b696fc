#include "recipes/run/attached_adapters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qlora::recipes {
namespace {
using testing::EndsWith;

TEST(UnseenTokens, WhatBecomesOfThemIsSaidByWhereTheyAreTrained) {
  lora::TrainedEmbeddings trained;
  EXPECT_EQ(unseen_tokens_sentence(trained, {}), "");
  trained.embedding_ids = {5, 6};
  EXPECT_EQ(unseen_tokens_sentence(trained, {5}),
            "lora.trainable_token_indices: no training row holds 1 of the 2 tokens (5): they stay "
            "as they are");
  trained.head_ids = {5, 7};  // untied
  EXPECT_EQ(unseen_tokens_sentence(trained, {5}),
            "lora.trainable_token_indices: no training row holds 1 of the 3 tokens (5): "
            "embed_tokens stays as it is, lm_head learns only not to say them");
  EXPECT_THAT(unseen_tokens_sentence(trained, {6}), EndsWith(": they stay as they are"));
  EXPECT_THAT(unseen_tokens_sentence(trained, {7}),
              EndsWith(": lm_head learns only not to say them"));
  trained.head_ids = trained.embedding_ids;
  trained.shared = true;
  EXPECT_THAT(unseen_tokens_sentence(trained, {5}),
              EndsWith(": lm_head learns only not to say them"));
}

}  // namespace
}  // namespace qlora::recipes
