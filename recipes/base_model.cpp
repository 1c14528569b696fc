#include "recipes/base_model.h"

#include "base/log.h"
#include "base/stopwatch.h"
#include "data/chat_renderer.h"
#include "model/hub_cache.h"
#include "model/load.h"

namespace qlora::recipes {
BaseModel load_base(const Recipe& recipe, c10::Device device) {
  const Stopwatch watch;
  BaseModel base;
  base.path = model::resolve_model_path(recipe.model.path);
  base.tokenizer = data::load_tokenizer(base.path);
  base.chat_template = data::choose_chat_template(recipe.data.chat_template, *base.tokenizer);
  const auto source = model::open_weights(base.path);
  base.model = model::load_model(
      *source, recipe.model, recipe.quantization, device,
      model::dtype_from_string(recipe.train.compute_dtype, "train.compute_dtype"));
  if (base.tokenizer->vocab_size() > base.model->config().vocab_size) {
    log::warning("the tokenizer knows {} tokens, the model {}: the last ones cannot be used",
                 base.tokenizer->vocab_size(), base.model->config().vocab_size);
  }
  base.record.name = recipe.model.name.empty() ? recipe.model.path : recipe.model.name;
  base.record.path = base.path;
  base.record.quantization = recipe.quantization;
  base.record.dtype = recipe.model.dtype;
  base.record.hash = base.model->base_hash();
  log::info("base model {}: {} ({:.1f} s)", base.path, model::describe(*base.model),
            watch.seconds());
  return base;
}

}  // namespace qlora::recipes
