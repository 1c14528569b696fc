// A run as its user describes it: one struct a section, each owned by the module that obeys it.
// recipes/yaml/recipe_yaml.h makes it from a file and writes it back; qlora_finetune runs it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/faults.h"
#include "data/example.h"
#include "lora/lora_options.h"
#include "model/model_options.h"
#include "optim/optimizer_options.h"
#include "quant/quantization_options.h"
#include "recipes/yaml/problems.h"
#include "trainer/train_options.h"

namespace qlora::recipes {

struct Recipe {
  model::ModelOptions model;
  quant::QuantizationOptions quantization;
  lora::LoraOptions lora;
  data::DataOptions data;
  optim::OptimizerOptions optim;
  trainer::TrainOptions train;
  trainer::OutputOptions output;
  std::string made_from;  // what model.path was made from, by with_saved_base(); no key
  quant::QuantizationOptions made_with;  // how it was quantized for that; no key
  std::string file;                      // where it was read from; no key
  std::map<std::string, Place> places;   // where its keys stand there; no key
  std::vector<std::string> left_out;     // a sentence each: what --set took the place of; no key

  // `data` with what other sections decide about its rows: train.audit.
  data::DataOptions data_as_read() const;

  // What one section alone cannot know; each names its key.
  void find_faults_across_sections(Faults& faults) const;
};

}  // namespace qlora::recipes
