// Which rows of a data set are taken, and how often, in the other tools.
#include <fmt/format.h>

#include "recipes/import/conversions.h"
#include "recipes/import/key_groups.h"

namespace qlora::recipes {
namespace {

void read_max_samples(const Found& found, const ToolKey&, Draft& draft) {
  if (is_off(found.value)) return draft.without_effect(found, "it is off");
  draft.set_in_datasets(found, "max_rows", plain(found.value));
}

size_t num_datasets(const Found& found) {
  const Node* names = in_file(found.root, "dataset");
  return names ? texts(*names).size() : 0;
}

// Their numbers are read with `dataset`, whose entries get them.
void read_probabilities(const Found& found, const ToolKey& key, Draft& draft) {
  const size_t count = num_datasets(found);
  if (count == 1) return draft.without_effect(found, "there is one data set");
  if (texts(found.value).size() != count)
    return draft.refuse(found, "it must have a number for each data set");
  draft.take(found, key.here);
}

// Which data set comes next, and when an epoch of several is over.
void read_mix_strategy(const Found& found, const ToolKey& key, Draft& draft) {
  const std::string strategy = found.value.text;
  if (strategy == "concat")
    return draft.without_effect(found,
                                "data sets are taken one after another and shuffled together");
  if (num_datasets(found) == 1) return draft.without_effect(found, "there is one data set");
  if (!strategy.starts_with("interleave"))
    return draft.refuse(found, "it is concat, interleave_under or interleave_over");
  draft.take(found, key.here);  // read with `dataset`
  draft.warn(fmt::format(
      "mix_strategy {} ends an epoch when {}; here data.train[].weight shares out an epoch that is "
      "as long as all data sets together, and train.max_steps can end the run earlier or later",
      strategy,
      strategy.ends_with("under") ? "the first data set is used up"
                                  : "the last data set is used up, with rows of the others again"));
}

}  // namespace

std::vector<ToolKey> llama_factory_share_keys() {
  return {
      read_by("max_samples", "data.train[].max_rows", "", read_max_samples),
      read_by("interleave_probs", "data.train[].weight", "one in each dataset", read_probabilities),
      read_by("mix_strategy", "data.train[].weight", "one in each dataset; concat has none",
              read_mix_strategy)};
}

std::vector<ToolKey> axolotl_share_keys() {
  return {same("dataset_exact_deduplication", "data.deduplicate")};
}

}  // namespace qlora::recipes
