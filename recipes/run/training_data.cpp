#include "recipes/run/training_data.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "data/cache/cached_dataset.h"
#include "data/mixture.h"
#include "lora/weight_init.h"

namespace qlora::recipes {
namespace {

data::LoaderOptions loader_options(const Recipe& recipe, const data::PreparedData& data) {
  data::LoaderOptions options;
  options.sequence_length = recipe.data.sequence_length;
  options.packing = recipe.data.packing;
  options.shuffle = recipe.data.shuffle;
  options.micro_batch_size = recipe.train.micro_batch_size;
  options.gradient_accumulation_steps = recipe.train.gradient_accumulation_steps;
  options.seed = recipe.train.seed;
  options.examples_of_source = data::examples_an_epoch(recipe.data, data.train);
  options.shuffle_block = recipe.data.shuffle_block;
  return options;
}

// Nothing if all rows are. A run that began with all of them goes on with all of them.
std::optional<data::NeededRows> needed_rows(const Recipe& recipe,
                                            const trainer::TrainState& state) {
  const bool began_with_all = state.horizon > 0 && state.first_examples == 0;
  // The reference of rows that a longer run adds is of the model before the first step.
  const bool loses_reference =
      recipe.train.objective == "dpo" && lora::init_changes_base(recipe.lora.init);
  if (recipe.train.max_steps == 0 || began_with_all || loses_reference ||
      !data::deals_first_rows_first(recipe.data))
    return std::nullopt;
  constexpr int64_t kAsGoodAsAll = std::numeric_limits<int64_t>::max() / 2;
  const int64_t a_step = recipe.train.micro_batch_size * recipe.train.gradient_accumulation_steps;
  const int64_t steps = std::min(recipe.train.max_steps, kAsGoodAsAll / a_step);
  return data::NeededRows{steps * a_step, state.first_examples, recipe.train.seed};
}

// What the cache of tokenized rows lacks one rank of each machine makes, while the others wait:
// then they find it there.
template <typename Prepare>
data::PreparedData in_turn(const data::DataOptions& options, const data::NeededRows* needed,
                           distributed::Group& group, const Prepare& prepare) {
  if (!group.any(data::looks_on_disk(options, needed))) return prepare();
  const bool makes = group.place().local_rank == 0;
  if (!makes) group.meet();
  data::PreparedData data = prepare();
  if (makes) group.meet();
  return data;
}

// One by one where they differ, which may take long.
int64_t steps_of_epochs(const data::Loader& loader, int64_t epochs) {
  if (loader.has_equal_epochs()) return epochs * loader.steps_in_epoch(0);
  Progress progress("counting the steps of the epochs", epochs, "epochs");
  int64_t steps = 0;
  for (int64_t epoch = 0; epoch < epochs; ++epoch) {
    steps += loader.steps_in_epoch(epoch);
    progress.advance();
  }
  return steps;
}

}  // namespace

data::PreparedData read_data(const Recipe& recipe, const ModelText& text,
                             const trainer::TrainState& state, distributed::Group& group) {
  const std::optional<data::NeededRows> needed = needed_rows(recipe, state);
  data::PreparedData data = in_turn(recipe.data, needed ? &*needed : nullptr, group, [&] {
    return data::prepare_datasets(recipe.data_as_read(), *text.tokenizer, text.chat_template.get(),
                                  recipe.train.seed, text.tokens, needed ? &*needed : nullptr);
  });
  for (const auto* reports : {&data.train_reports, &data.eval_reports})
    for (const data::DatasetReport& report : *reports) log::write_info(data::to_text(report));
  for (const std::string& note : data.cache_notes) log::write_info(note);
  for (const std::string& warning : data.warnings) log::write_warning(warning);
  return data;
}

std::string mixture_of(const Recipe& recipe, const data::PreparedData& data) {
  const data::LoaderOptions options = loader_options(recipe, data);
  if (options.examples_of_source.empty()) return "";
  return data::mixture_text(recipe.data, data::Loader(data.train, options));
}

data::Loader make_loader(const Recipe& recipe, const data::PreparedData& data) {
  data::Loader loader(data.train, loader_options(recipe, data));
  if (const std::string mixture = data::mixture_text(recipe.data, loader); !mixture.empty())
    log::write_info(mixture);
  return loader;
}

int64_t total_steps(const Recipe& recipe, const data::Loader& loader, int64_t horizon) {
  if (recipe.train.max_steps > 0) return recipe.train.max_steps;
  const double epochs = recipe.train.epochs;
  const auto whole = static_cast<int64_t>(std::floor(epochs));
  const int64_t before = steps_of_epochs(loader, whole);
  int64_t steps = before;
  if (const double part = epochs - static_cast<double>(whole); part > 0) {
    const int64_t last = loader.steps_in_epoch(whole);
    const auto in_last = static_cast<double>(last);
    if (const int64_t nearest = std::max<int64_t>(before + std::llround(part * in_last), 1);
        nearest == horizon)
      return nearest;
    // Of the product with all epochs, whose rounding is that of transformers.
    steps += std::clamp(static_cast<int64_t>(std::ceil(epochs * in_last)) - whole * last,
                        int64_t{0}, last);
  }
  if (steps > trainer::kMostSteps)
    fail<ConfigError>(
        "train.epochs: {} epochs of these rows are {} steps, and at most {} are possible", epochs,
        steps, trainer::kMostSteps);
  return std::max<int64_t>(steps, 1);
}

int64_t longest_sequence(const Recipe& recipe, const data::Loader& loader) {
  if (recipe.data.packing) return recipe.data.sequence_length;
  int64_t longest = 1;
  for (const data::ExampleView& example : loader.examples())
    longest = std::max(longest, example.length());
  return longest;
}

}  // namespace qlora::recipes
