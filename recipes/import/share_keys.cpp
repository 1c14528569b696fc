// Which rows of a data set are taken, and how often, in the other tools.
#include "recipes/import/conversions.h"
#include "recipes/import/key_groups.h"

namespace qlora::recipes {
namespace {

void read_max_samples(const Found& found, const ToolKey&, Draft& draft) {
  if (is_off(found.value)) return draft.without_effect(found, "it is off");
  draft.set_in_datasets(found, "max_rows", plain(found.value));
}

// Their numbers are read with `dataset`, whose entries get them.
void read_probabilities(const Found& found, const ToolKey& key, Draft& draft) {
  if (const std::string later = problem_of_value(key.here, plain(found.value)); !later.empty())
    return draft.refuse(found, later);
  draft.take(found, key.here);
}

}  // namespace

std::vector<ToolKey> llama_factory_share_keys() {
  return {read_by("max_samples", "data.train[].max_rows", "", read_max_samples),
          read_by("interleave_probs", "data.train[].weight", "one in each dataset",
                  read_probabilities)};
}

std::vector<ToolKey> axolotl_share_keys() {
  return {same("dataset_exact_deduplication", "data.deduplicate")};
}

}  // namespace qlora::recipes
