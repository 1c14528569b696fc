// Runs the initialisations that need the original weights (lora/weight_init.h) while a base is
// loaded, and reports what they did.
#pragma once

#include <string>
#include <vector>

#include "lora/initial_factors.h"
#include "lora/weight_init.h"
#include "model/causal_lm.h"
#include "model/load.h"
#include "recipes/recipe.h"

namespace qlora::recipes {

// Whether lora.init can start from a layer that the file holds packed, in `format`, and the model
// is there that it takes for that. ConfigError.
void require_init_on_packed(const lora::LoraOptions& options, const std::string& module,
                            const std::string& format);

class BaseInit {
 public:
  explicit BaseInit(const Recipe& recipe) : recipe_(recipe) {}

  // For load_model: initialises target layers, quantizes the others, and those that loftq can do
  // nothing for.
  model::WeightMaker maker();
  // After it: layers that were stored packed are compared with lora.loftq.original. ConfigError if
  // there are such and it is not given, or the init cannot work on them.
  void add_packed_layers(model::CausalLm& model);
  // Whether the base is another than the file's.
  bool changed_base() const { return changed_base_; }
  const lora::GivenFactors& factors() const { return factors_; }
  // Prints the errors before and after, on average and the largest.
  void report() const;
  // All of them, by layer.
  std::string table_json() const;

 private:
  struct Row {
    std::string module;
    double plain_error, error;
    int64_t iteration;
  };
  void keep(const std::string& module, lora::WeightInit& found);

  const Recipe& recipe_;
  lora::GivenFactors factors_;
  std::vector<Row> rows_;
  bool changed_base_ = false;
};

}  // namespace qlora::recipes
