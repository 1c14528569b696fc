#include "recipes/before_loading.h"

#include <fmt/format.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/warn_once.h"
#include "data/chat_renderer.h"
#include "data/dataset.h"
#include "data/row_source.h"
#include "lora/attach.h"
#include "lora/targets.h"
#include "lora/weight_init.h"
#include "lora/whole_modules.h"
#include "model/architecture.h"
#include "model/expert_targets.h"
#include "model/hub_cache.h"
#include "model/model_header.h"
#include "model/placement.h"
#include "model/skip_modules.h"
#include "optim/optimizer.h"
#include "recipes/idle_keys.h"
#include "recipes/models/adapter_text.h"
#include "recipes/models/init_on_model.h"
#include "recipes/models/kept_packing.h"
#include "recipes/models/model_tokens.h"
#include "recipes/options_from_files.h"
#include "recipes/plan/plan.h"
#include "recipes/run/samples.h"
#include "recipes/run/starting_state.h"
#include "recipes/run_files/run_directory.h"
#include "recipes/run_files/run_names.h"
#include "recipes/run_files/train_command.h"
#include "recipes/yaml/recipe_yaml.h"
#include "trainer/memory_fit.h"
#include "trainer/planned_adapters.h"

namespace qlora::recipes {
namespace {

constexpr int64_t kFirstRows = 64;

class Look {
 public:
  enum class For { kNewRun, kBegunRun, kPlan };

  // `checkpoint`: from which a run goes on.
  Look(const Recipe& recipe, ProblemList& problems, For use = For::kNewRun,
       std::string checkpoint = "")
      : recipe_(recipe), problems_(problems), use_(use), checkpoint_(std::move(checkpoint)) {}

  void at_model() {
    at("lora.from_adapter", [&] { adopt_adapter_options(recipe_); });
    at("model.path", [&] { at_model_files(); });
    at("data.chat_template", [&] {
      if (text_.tokenizer)
        text_.chat_template = data::choose_chat_template(recipe_.data, *text_.tokenizer);
    });
    if (text_.tokenizer) at("lora.trainable_tokens", [&] { name_trained_tokens(recipe_); });
    if (header_) at("quantization", [&] { quantization_of(recipe_, *header_); });
    if (header_)
      at("quantization.fp32_cpu_offload", [&] { require_offload_of(recipe_, *header_); });
    if (header_ && !header_->stored)
      at_entries("quantization.skip_modules", [&] {
        model::require_skip_modules(recipe_.quantization, header_->architecture,
                                    "quantization.skip_modules");
      });
    if (header_) at("model.device_map", [&] { at_device_map(); });
    if (header_ && header_->architecture.has_encoder())
      at_entries("data.train_on", [&] { refuse_trained_inputs(); });
    if (header_ && recipe_.output.save_base && can_plan_weights())
      at("output.save_base", [&] { require_writable_base(recipe_, *header_, "output.save_base"); });
    if (header_ && !problems_.is_covered("lora")) at_targets();
    if (header_)
      at("train.gradient_checkpointing", [&] {
        trainer::recomputed_layers(recipe_.train.gradient_checkpointing,
                                   header_->architecture.num_layers());
      });
    if (header_ && !problems_.is_covered_within("lora") && !problems_.is_covered_within("optim"))
      at("optim.paged_resident_bytes", [&] { at_pages(); });
  }

  void at_rows() {
    at_datasets("data.train", recipe_.data.train);
    at_datasets("data.eval", recipe_.data.eval);
    at("train.sample_prompts", [&] { read_sample_prompts(recipe_.train); });
  }

  // That of a run by epochs is known once its rows are read.
  void at_length(int64_t horizon) {
    at("train.on_extend", [&] { require_on_extend(recipe_, horizon, recipe_.train.max_steps); });
  }

  void warn_of_idle_keys() const {
    for (const std::string& sentence : idle_keys(recipe_)) log::write_warning_once(sentence);
    if (!header_) return;
    for (const std::string& sentence : idle_keys_on(*header_, recipe_))
      log::write_warning_once(sentence);
  }

  // Whether a config.json is all that is known of the model.
  bool has_config_alone() const { return header_ && !text_.tokenizer; }

  ModelText take_text() { return std::move(text_); }

 private:
  // What `work` is refused with becomes a problem of `key`, which has none yet.
  template <typename Work>
  void at(const std::string& key, const Work& work) {
    if (problems_.is_covered_within(key)) return;
    try {
      work();
    } catch (const ConfigError& error) {
      add(key, error.what());
    } catch (const FormatError& error) {
      add(key, error.what());
    }
  }

  // Of entries that mean nothing in the model, which change nothing. A run that has begun with them
  // keeps them: they are no problem of its, and cannot be taken out of its recipe any more.
  template <typename Work>
  void at_entries(const std::string& key, const Work& work) {
    if (use_ != For::kBegunRun) return at(key, work);
    try {
      work();
    } catch (const ConfigError& error) {
      log::warning("{}; that changes nothing, and the run goes on as it began", error.what());
    }
  }

  // At the key that the sentence begins with, unless that has a problem already, else at `key`,
  // which it is given as its beginning.
  void add(const std::string& key, const std::string& sentence) {
    const std::string section = key.substr(0, key.find('.'));
    const std::string first_word = sentence.substr(0, sentence.find_first_of(" :,"));
    const bool names_key = first_word == section || first_word.starts_with(section + ".");
    if (names_key && problems_.is_covered(first_word)) return;
    problems_.covered(key);
    if (names_key) problems_.covered(first_word);
    problems_.add(names_key ? first_word : key, names_key ? sentence : key + ": " + sentence);
  }

  void at_model_files() {
    if (recipe_.model.path.empty()) return;
    const std::string path = path_of_model();
    header_ = model::read_model_header(path);
    text_.tokens = model_tokens(header_->architecture);
    // By a config.json alone a run can be planned.
    if (!header_->weights && (use_ == For::kPlan || !std::filesystem::is_directory(path))) return;
    ChosenTokenizer chosen = chosen_tokenizer();
    text_.tokenizer = std::move(chosen.tokenizer);
    text_.is_adapters_tokenizer = chosen.is_adapters;
  }

  // A run that has begun keeps the one that it began with.
  ChosenTokenizer chosen_tokenizer() const {
    if (checkpoint_.empty()) return tokenizer_of(recipe_);
    const bool is_models = recipe_.lora.from_adapter.empty();
    return tokenizer_with(recipe_.model.path, is_models ? "" : checkpoint_ + "/adapter");
  }

  // `qlora resume` takes no --set.
  std::string path_of_model() const {
    try {
      return model::resolve_model_path(recipe_.model.path);
    } catch (const ConfigError& error) {
      const std::filesystem::path record = std::filesystem::path(recipe_.output.dir) / kRecipeFile;
      const bool is_of_run = std::filesystem::path(recipe_.file).filename() == kRecipeFile;
      if (!is_of_run || !std::filesystem::exists(record)) throw;
      fail<ConfigError>("{}{}", error.what(), way_on_with_moved_base(recipe_.output.dir));
    }
  }

  // What the encoder reads is no text that the model writes.
  void refuse_trained_inputs() const {
    if (recipe_.data.train_on == data::TrainOn::kAll)
      throw ConfigError(
          "data.train_on: the encoder reads the inputs, of which nothing can be learnt as answers "
          "are; leave it out");
  }

  // Its modules; the planner looks at the device.
  void at_device_map() {
    if (model::is_automatic(recipe_.model)) return;
    const auto placement = model::placement_of(recipe_.model, header_->architecture, at::kCPU);
    if (can_plan_weights()) require_movable_head(recipe_, *header_, placement);
  }

  // Each key by itself: a fault of one leaves the others to be looked at.
  void at_targets() {
    const model::Architecture& a = header_->architecture;
    at("lora.targets", [&] { model::resolve_expert_targets(a, recipe_.lora); });
    std::vector<std::string> linear = a.linear_modules(), others = {a.embedding.names.hugging_face};
    for_each_norm(
        a, [&](const std::string& module, const model::NormSpec&) { others.push_back(module); });
    linear.push_back(a.head.names.hugging_face);
    at("lora.modules_to_save", [&] { lora::check_whole_modules(recipe_.lora, linear, others); });
    if (recipe_.lora.from_adapter.empty()) at_patterns(linear, others);
    at_parameters(linear);
    if (use_ != For::kBegunRun && recipe_.lora.from_adapter.empty()) at_ranks();
    at_trained_tokens();
    at_init();
  }

  // Tokens by their text are ids by now (name_trained_tokens): what is wrong with these is told of
  // the key that the recipe has.
  void at_trained_tokens() {
    const std::string ids = "lora.trainable_token_indices", texts = "lora.trainable_tokens";
    const bool has_texts = recipe_.places.contains(texts) && !recipe_.places.contains(ids);
    const model::Architecture& a = header_->architecture;
    at(has_texts ? texts : ids, [&] {
      try {
        const lora::TrainedEmbeddings trained = lora::trained_embeddings(
            recipe_.lora, a.tied_embeddings, a.vocab_size, a.embedding_names());
        if (lora::is_target(recipe_.lora, a.head.names.hugging_face))
          lora::check_adapted_head(recipe_.lora, trained, a.tied_embeddings, a.embedding_names());
      } catch (const ConfigError& error) {
        const std::string sentence = error.what();
        if (!has_texts || !sentence.starts_with(ids)) throw;
        const size_t end = sentence.find_first_of(" :");
        throw ConfigError(texts + sentence.substr(std::min(end, sentence.size())));
      }
    });
  }

  bool can_plan_weights() const {
    return !problems_.is_covered_within("quantization") &&
           !problems_.is_covered_within("model.dtype");
  }

  void at_init() {
    if (!lora::init_changes_base(recipe_.lora.init) || !recipe_.lora.from_adapter.empty() ||
        use_ == For::kBegunRun || problems_.is_covered_within("lora"))
      return;
    at("lora.init", [&] { require_targets_of_init(recipe_, *header_); });
    if (can_plan_weights()) at("lora.init", [&] { require_weights_of_init(recipe_, *header_); });
    // LoftQ changes none where weights stay packed.
    if (can_plan_weights() && recipe_.lora.init != "loftq")
      at("lora.init", [&] { require_writable_base(recipe_, *header_, "lora.init"); });
  }

  // That the optimizer's state fits, of what is going to be trained.
  void at_pages() const {
    constexpr const char* kKey = "optim.paged_resident_bytes";
    if (recipe_.optim.paged_resident_bytes == 0) return;
    trainer::PlannedRun run;
    run.architecture = header_->architecture;
    run.lora = recipe_.lora;
    try {
      model::resolve_expert_targets(run.architecture, run.lora);
      optim::optimizer_state_bytes(recipe_.optim, trainer::planned_adapters(run).parameter_sizes,
                                   /*on_gpu=*/false);
    } catch (const ConfigError& error) {  // of other keys, which are looked at for themselves
      if (std::string_view(error.what()).starts_with(kKey)) throw;
    }
  }

  // Each by itself.
  void at_parameters(const std::vector<std::string>& linear) {
    const lora::LoraOptions& options = recipe_.lora;
    lora::LoraOptions plain = options;
    plain.modules_to_save.clear();
    plain.use_dora = false;
    plain.dropout = 0;
    const auto at_key = [&](const std::string& key, auto lora::LoraOptions::*member) {
      lora::LoraOptions with_key = plain;
      with_key.*member = options.*member;
      at(key, [&] { lora::check_parameters(with_key, linear); });
    };
    at_key("lora.modules_to_save", &lora::LoraOptions::modules_to_save);
    at_key("lora.use_dora", &lora::LoraOptions::use_dora);
    at_key("lora.dropout", &lora::LoraOptions::dropout);
  }

  // A begun run has its factors already. Beside a weight that is not quantized LoftQ's are those of
  // lora.init default, which have any rank.
  void at_ranks() {
    const bool loftq = recipe_.lora.init == "loftq";
    if (!lora::init_changes_base(recipe_.lora.init) || (loftq && !can_plan_weights())) return;
    const model::Architecture& a = header_->architecture;
    at("lora.rank", [&] {
      const auto weight = loftq ? planned_weights(recipe_, *header_) : nullptr;
      model::for_each_linear(a, [&](const std::string& module, const model::LinearSpec& linear) {
        if (linear.never_quantized || !lora::is_target(recipe_.lora, module)) return;
        if (!loftq || weight(module, linear).traits.kind != quant::WeightKind::kStored)
          lora::check_rank_of_init(recipe_.lora.of_module(module), linear.out, linear.in, module);
      });
    });
  }

  // An adapter's own patterns may name modules of other models.
  void at_patterns(const std::vector<std::string>& linear, std::vector<std::string> others) {
    const lora::LoraOptions& options = recipe_.lora;
    others.insert(others.end(), linear.begin(), linear.end());
    at_entries("lora.exclude_modules", [&] { lora::check_exclusions(options, others); });
    at_entries("lora.layers_to_transform", [&] { lora::check_layers(options, linear); });
    at_entries("lora.rank_pattern", [&] { lora::check_rank_pattern(options, linear); });
    at_entries("lora.alpha_pattern", [&] { lora::check_alpha_pattern(options, linear); });
    if (!problems_.is_covered_within("lora.rank_pattern") &&
        !problems_.is_covered_within("lora.alpha_pattern"))
      for (const std::string& sentence : lora::idle_patterns(options, linear))
        log::warning_once("{}", sentence);
    // That wrong layers leave nothing is no fault of the targets.
    lora::LoraOptions of_known_layers = options;
    if (problems_.is_covered("lora.layers_to_transform"))
      of_known_layers.layers_to_transform.clear();
    at("lora.targets", [&] { lora::match_targets(of_known_layers, linear); });
  }

  void at_datasets(const std::string& list, const std::vector<data::DatasetOptions>& datasets) {
    // Without tokenizer, template or a length that rows can have there are no tokens to speak of,
    // but files.
    const bool whole = text_.tokenizer && recipe_.data.sequence_length >= data::kShortestSequence &&
                       !problems_.is_covered_within("data.chat_template") &&
                       !problems_.is_covered_within("data.sequence_length");
    for (size_t i = 0; i < datasets.size(); ++i)
      at(fmt::format("{}[{}]", list, i), [&] {
        if (whole)
          data::read_first_rows(datasets[i], static_cast<int32_t>(i), kFirstRows, recipe_.data,
                                *text_.tokenizer, text_.chat_template.get(), text_.tokens);
        else
          data::RowSource(datasets[i]).next(kFirstRows);
      });
  }

  Recipe recipe_;
  ProblemList& problems_;
  For use_;
  std::string checkpoint_;
  std::optional<model::ModelHeader> header_;
  ModelText text_;
};

// `horizon`: of a run that goes on, the steps it was laid out for.
void look_at_run(Look& look, std::optional<int64_t> horizon) {
  look.at_model();
  look.at_rows();
  if (horizon) look.at_length(*horizon);
}

ModelText check_run(const Recipe& recipe, Look::For use, std::optional<int64_t> horizon = {},
                    const std::string& checkpoint = "") {
  ProblemList problems(recipe.file, recipe.places);
  Look look(recipe, problems, use, checkpoint);
  look_at_run(look, horizon);
  ModelText text = look.take_text();
  if (!text.tokenizer && !problems.is_covered_within("model.path"))
    problems.add(
        "model.path",
        fmt::format("model.path: {} describes a model, and holds neither its tokenizer nor "
                    "its weights; give the directory of the model's files",
                    recipe.model.path));
  problems.throw_if_any();
  if (use == Look::For::kNewRun) look.warn_of_idle_keys();
  return text;
}

// Whether a start of the recipe goes on with the run in output.dir.
bool goes_on(const Recipe& recipe) {
  const std::optional<Recipe> begun = begun_run(recipe);
  return begun && fixed_differences(*begun, recipe).empty();
}

}  // namespace

ModelText look_before_loading(const Recipe& recipe, ProblemList& problems) {
  Look look(recipe, problems);
  look_at_run(look, std::nullopt);
  return look.take_text();
}

void check_before_planning(const Recipe& recipe) {
  ProblemList problems(recipe.file, recipe.places);
  Look look(recipe, problems, Look::For::kPlan);
  look.at_model();
  if (!look.has_config_alone() || !problems.empty()) look.at_rows();
  problems.throw_if_any();
  look.warn_of_idle_keys();
}

ModelText check_before_loading(const Recipe& recipe,
                               const std::optional<trainer::TrainState>& begun,
                               const std::string& checkpoint) {
  if (!begun) return check_run(recipe, Look::For::kNewRun);
  return check_run(recipe, Look::For::kBegunRun, begun->horizon, checkpoint);
}

void complete_recipe(Recipe& recipe) {
  try {
    adopt_adapter_options(recipe);
    name_trained_tokens(recipe);
    name_expert_targets(recipe);
  } catch (const Error&) {
    check_run(recipe, goes_on(recipe) ? Look::For::kBegunRun : Look::For::kNewRun);
    throw;
  }
}

}  // namespace qlora::recipes
