#include "recipes/before_loading.h"

#include <fmt/format.h>

#include <memory>
#include <optional>

#include "base/error.h"
#include "data/chat_renderer.h"
#include "data/dataset.h"
#include "data/row_source.h"
#include "lora/targets.h"
#include "lora/whole_modules.h"
#include "model/hub_cache.h"
#include "model/linear_shapes.h"
#include "model/model_header.h"
#include "recipes/base_model.h"
#include "recipes/plan.h"
#include "recipes/run_parts.h"

namespace qlora::recipes {
namespace {

constexpr int64_t kFirstRows = 64;

class Look {
 public:
  Look(const Recipe& recipe, ProblemList& problems)
      : recipe_(recipe.output.overwrite ? recipe : with_saved_base(recipe)), problems_(problems) {}

  void at_everything() {
    at("lora.from_adapter", [&] { adopt_adapter_options(recipe_); });
    at("model.path", [&] { at_model_files(); });
    at("data.chat_template", [&] {
      if (tokenizer_)
        template_ = data::choose_chat_template(recipe_.data.chat_template, *tokenizer_);
    });
    if (tokenizer_) at("lora.trainable_tokens", [&] { name_trained_tokens(recipe_); });
    if (header_) at("quantization", [&] { quantization_of(recipe_, *header_); });
    if (header_) at("lora", [&] { at_targets(); });
    at_datasets("data.train", recipe_.data.train);
    at_datasets("data.eval", recipe_.data.eval);
  }

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

  // At the key that the sentence begins with, else at `key`, which it is given as its beginning.
  void add(const std::string& key, const std::string& sentence) {
    problems_.covered(key);
    const std::string section = key.substr(0, key.find('.'));
    if (sentence.starts_with(section + "."))
      problems_.add(sentence.substr(0, sentence.find_first_of(" :,")), sentence);
    else
      problems_.add(key, key + ": " + sentence);
  }

  void at_model_files() {
    if (recipe_.model.path.empty()) return;
    const std::string path = model::resolve_model_path(recipe_.model.path);
    header_ = model::read_model_header(path);
    tokenizer_ = data::load_tokenizer(path);
  }

  void at_targets() {
    const model::ModelConfig& config = header_->config;
    std::vector<std::string> linear, others = {lora::kEmbeddingName, "model.norm"};
    for (int64_t layer = 0; layer < config.num_layers; ++layer) {
      for (const model::LinearShape& shape : model::linear_shapes(config))
        linear.push_back(shape.module(layer));
      const std::string prefix = fmt::format("model.layers.{}.", layer);
      others.push_back(prefix + "input_layernorm");
      others.push_back(prefix + "post_attention_layernorm");
    }
    linear.emplace_back(lora::kHeadName);
    lora::check_whole_modules(recipe_.lora, linear, others);
    lora::match_targets(recipe_.lora, linear);
    lora::trained_embeddings(recipe_.lora, config.tied_embeddings, config.vocab_size);
  }

  void at_datasets(const std::string& list, const std::vector<data::DatasetOptions>& datasets) {
    // Without tokenizer or template there are no tokens to speak of, but files.
    const bool whole = tokenizer_ && !problems_.is_covered_within("data.chat_template") &&
                       !problems_.is_covered_within("data.sequence_length");
    for (size_t i = 0; i < datasets.size(); ++i)
      at(fmt::format("{}[{}]", list, i), [&] {
        if (whole)
          data::check_first_rows(datasets[i], kFirstRows, recipe_.data, *tokenizer_,
                                 template_.get(),
                                 header_ ? header_->config.vocab_size : data::kAnyRows);
        else
          data::RowSource(datasets[i]).next(kFirstRows);
      });
  }

  Recipe recipe_;
  ProblemList& problems_;
  std::optional<model::ModelHeader> header_;
  std::unique_ptr<data::Tokenizer> tokenizer_;
  std::unique_ptr<data::ChatTemplate> template_;
};

}  // namespace

void look_before_loading(const Recipe& recipe, ProblemList& problems) {
  Look(recipe, problems).at_everything();
}

void check_before_loading(const Recipe& recipe) {
  ProblemList problems(recipe.file, recipe.places);
  look_before_loading(recipe, problems);
  problems.throw_if_any();
}

}  // namespace qlora::recipes
