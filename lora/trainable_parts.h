// What a model has that can be trained: its linear layers, and the parts that modules_to_save and
// trainable_token_indices may name. Pointers into the model, which outlives the AdapterSet.
#pragma once

#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "lora/embedding.h"
#include "lora/embedding_names.h"
#include "lora/linear_group.h"

namespace qlora::lora {

struct TrainableParts {
  TrainableParts(std::vector<LinearGroup*> linear_groups) : groups(std::move(linear_groups)) {}
  TrainableParts(std::initializer_list<LinearGroup*> linear_groups) : groups(linear_groups) {}

  std::vector<LinearGroup*> groups;  // of the layers
  EmbeddingNames names;              // of embedding and head
  LinearGroup* head = nullptr;       // of one layer
  bool fp32_head = false;            // the head's products are fp32 whatever the others are
  Embedding* embedding = nullptr;
  bool tied = false;                                       // head and embedding are one matrix
  std::vector<std::pair<std::string, NormWeight*>> norms;  // by module path
  bool has_encoder = false;  // an encoder-decoder model: PEFT's SEQ_2_SEQ_LM, else CAUSAL_LM
  // Parts of the model that are not trained here have modules of the same last names (the vision
  // tower of a multimodal model).
  bool names_are_shared = false;

  // The groups and the head, which is the last.
  std::vector<LinearGroup*> all_groups() const {
    std::vector<LinearGroup*> all = groups;
    if (head != nullptr) all.push_back(head);
    return all;
  }
};

}  // namespace qlora::lora
