// In which order rows are trained in the other tools.
#include "recipes/import/conversions.h"
#include "recipes/import/key_groups.h"

namespace qlora::recipes {
namespace {

constexpr const char* kAtRandom = "rows come in random order, as there (data.shuffle)";

bool packs(const Found& found) {
  return is_true(beside(found, "packing")) || is_true(beside(found, "neat_packing")) ||
         is_true(beside(found, "sample_packing"));
}

// Rows of about the same length lie in one micro-batch, to be padded little.
void group_by_length(const Found& found, Draft& draft) {
  if (packs(found))
    return draft.without_effect(found, "rows are packed, which leaves nothing to pad");
  draft.refuse(found,
               "rows come in random order (data.shuffle) or in that of the file, whatever their "
               "length; nothing is padded");
}

void read_group_by_length(const Found& found, const ToolKey&, Draft& draft) {
  if (is_off(found.value)) return draft.without_effect(found, "it is off");
  group_by_length(found, draft);
}

void read_sampling(const Found& found, const ToolKey& key, Draft& draft) {
  const std::string strategy = found.value.text;
  if (strategy == "random") return draft.without_effect(found, kAtRandom);
  if (strategy == "sequential") return draft.set(found, key.here, Node::scalar("false"));
  group_by_length(found, draft);
}

bool takes_rows_in_order(const Node& root) {
  return is_true(in_file(root, "curriculum_sampling")) && !compares_in_axolotl(root);
}

bool keeps_merged_order(const Node& root) {
  const Node* shuffles = in_file(root, "shuffle_merged_datasets");
  return shuffles && is_off(*shuffles);
}

// It is Axolotl's sampler that takes rows in order or at random; what is shuffled before it has an
// effect only where it takes them in order.
void read_curriculum(const Found& found, const ToolKey& key, Draft& draft) {
  if (!is_true(&found.value)) return draft.without_effect(found, "it is off");
  if (!takes_rows_in_order(found.root))
    return draft.without_effect(found, "trainers of rl draw rows at random all the same");
  const Node* datasets = in_file(found.root, "datasets");
  const bool several = datasets && datasets->items.size() > 1;
  if (several && !keeps_merged_order(found.root))
    return draft.refuse(found,
                        "merged data sets are shuffled once there (shuffle_merged_datasets), and "
                        "each epoch has that order; data.shuffle: true draws a new one each epoch");
  draft.set(found, key.here, Node::scalar("false"));
}

void read_merged_order(const Found& found, const ToolKey& key, Draft& draft) {
  if (!is_off(found.value)) return draft.without_effect(found, kAtRandom);
  if (takes_rows_in_order(found.root)) return draft.take(found, key.here);
  draft.without_effect(found,
                       "rows are drawn at random in each epoch all the same (data.shuffle), there "
                       "and here; curriculum_sampling takes them in order");
}

bool streams(const Node& root) {
  return is_true(in_file(root, "streaming")) || is_true(in_file(root, "dataset_streaming"));
}

// Of a stream the rows come as it has them; of other data sets the trainer draws them at random.
void read_shuffle_dataset(const Found& found, const ToolKey& key, Draft& draft) {
  const bool shuffles = is_true(&found.value);
  if (!streams(found.root)) return draft.without_effect(found, kAtRandom);
  if (shuffles) return draft.set(found, "data.shuffle_block", Node::scalar("1000"));
  draft.set(found, key.here, Node::scalar("false"));
}

}  // namespace

std::vector<ToolKey> row_order_keys() {
  return {read_by("group_by_length", "", "rows come in random order, whatever their length",
                  read_group_by_length),
          read_by("train_sampling_strategy", "data.shuffle", "false is sequential", read_sampling)};
}

std::vector<ToolKey> axolotl_row_order_keys() {
  return {read_by("curriculum_sampling", "data.shuffle", "the other way round", read_curriculum,
                  "false"),
          read_by("shuffle_merged_datasets", "data.shuffle", "with curriculum_sampling",
                  read_merged_order)};
}

std::vector<ToolKey> trl_row_order_keys() {
  return {read_by("shuffle_dataset", "data.shuffle", "of streams", read_shuffle_dataset)};
}

void finish_trl_row_order(const Node& root, Draft& draft) {
  const bool says_so = in_file(root, "shuffle_dataset") != nullptr;
  if (streams(root) && !says_so) draft.set_default("data.shuffle", Node::scalar("false"), "TRL");
}

}  // namespace qlora::recipes
