#include "recipes/models/base_model.h"

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/hub_id.h"
#include "base/log.h"
#include "base/stopwatch.h"
#include "data/chat_renderer.h"
#include "export/card_parts.h"
#include "export/quantized.h"
#include "io/atomic_write.h"
#include "io/hashing.h"
#include "io/live_mappings.h"
#include "io/user_path.h"
#include "model/base_hash.h"
#include "model/hub_cache.h"
#include "model/load.h"
#include "model/model_header.h"
#include "model/stored_kind.h"
#include "recipes/given_adapter.h"
#include "recipes/models/adapter_on_base.h"
#include "recipes/models/adapter_text.h"
#include "recipes/models/base_init.h"
#include "recipes/models/compute_dtype.h"
#include "recipes/models/model_dtype.h"
#include "recipes/plan/plan.h"
#include "recipes/run_files/run_directory.h"
#include "recipes/run_files/set_aside.h"
#include "trainer/shard_group.h"

namespace qlora::recipes {
namespace {

constexpr const char* kInitTable = "initialisation.json";
constexpr const char* kSavedBase = "base";

std::string saved_base(const Recipe& recipe) {
  return (std::filesystem::path(recipe.output.dir) / kSavedBase).string();
}

// Of each file in a directory, by its path there.
std::map<std::string, std::string> hashes_of(const std::string& directory) {
  std::map<std::string, std::string> hashes;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory))
    if (entry.is_regular_file())
      hashes[entry.path().lexically_relative(directory).string()] =
          io::hash_file(entry.path().string());
  return hashes;
}

// Of the base in a directory, read as it lies there.
std::string hash_of_stored(const std::string& directory, const std::string& dtype) {
  model::ModelOptions options;
  options.dtype = dtype;
  model::BaseHasher hasher;
  model::stream_model(*model::open_weights(directory), options, {}, at::kCPU, {},
                      [&](const model::StreamedPart& part) { hasher.add(part.tensors); });
  return hasher.hex();
}

model::Placement placement_on(const Recipe& recipe, const std::string& path, c10::Device device,
                              const distributed::Place& ranks) {
  if (recipe.model.device_map.empty()) return {};
  model::Placement placement = planned_run(recipe, model::read_model_header(path), device.is_cuda(),
                                           ranks.size, ranks.local_size)
                                   .placement;
  return ranks.size > 1 ? placement : placement.for_one_rank();
}

// By module, for whoever has the adapter without the run's device_map.
quant::QuantizationOptions recorded(quant::QuantizationOptions options,
                                    const model::CausalLm& model) {
  options.fp32_cpu_offload = false;
  for (std::string& module : model::float32_modules(model.placement, model.architecture()))
    options.skip_modules.push_back(std::move(module));
  return options;
}

// The recipe of the run in a directory above `path`, `levels` of them at most; nothing if there is
// none, or none that can be read.
std::optional<Recipe> recipe_above(const std::string& path, int levels) {
  std::filesystem::path place = std::filesystem::absolute(path).lexically_normal();
  if (!place.has_filename()) place = place.parent_path();  // of a slash at the end
  for (int level = 0; level < levels; ++level) {
    place = place.parent_path();
    try {
      return read_run_recipe(place.string());
    } catch (const Error&) {
      continue;
    }
  }
  return std::nullopt;
}

// Of an adapter on a changed base whose record names no init that changes one: that of its run, or
// else of the run that wrote the base; empty if no recipe says it. An adapter that another run
// began on that base as on any model keeps what it records.
std::string init_on_changed_base(const std::string& adapter, const std::string& base,
                                 const std::string& recorded) {
  const auto own = recipe_above(adapter, 2);  // RUN/adapter, RUN/checkpoint-1/adapter
  if (own && lora::init_changes_base(own->lora.init)) return own->lora.init;
  if (own && own->lora.from_adapter.empty()) return recorded;
  const auto writer = recipe_above(base, 1);
  return writer && lora::init_changes_base(writer->lora.init) ? writer->lora.init : "";
}

// Whether it is the directory that the run of the adapter with this record wrote, here or where
// somebody has put it, and not the model which that was made from: that may have the same weights.
bool is_base_of_record(const BaseModel& base, const lora::AdapterBase& record) {
  return is_changed_base(base.path) ||
         io::last_part(base.record.name) == io::last_part(record.name);
}

// For an adapter from elsewhere.
void fit_to_adapter(const Recipe& recipe, BaseUse use, BaseModel& base) {
  const std::string& adapter = recipe.lora.from_adapter;
  if (adapter.empty()) return;
  if (use == BaseUse::kOfRun && !has_given_adapter(recipe)) return;  // the run's adapters say it
  adopt_base_origin(adapter, base);
  if (use == BaseUse::kOfRun || is_changed_base(base.path)) return;
  if (base.model->placement.on_ranks() && !lora::initial_product_of(adapter).empty())
    fail<ConfigError>(
        "lora.from_adapter: {} belongs to a base less the product it began with, and blocks that "
        "ranks keep together (model.device_map) stay as they are; write that base beforehand, by a "
        "run of one rank",
        adapter);
  take_off_initial_product(adapter, recipe.lora, recipe.quantization, base);
  if (base.changed) base.init_table = "[]\n";
}

}  // namespace

BaseModel load_base(const Recipe& recipe, c10::Device device, BaseUse use) {
  ModelText text;
  ChosenTokenizer chosen = tokenizer_of(recipe);
  text.tokenizer = std::move(chosen.tokenizer);
  text.is_adapters_tokenizer = chosen.is_adapters;
  text.chat_template = data::choose_chat_template(recipe.data, *text.tokenizer);
  return load_base(recipe, device, use, std::move(text), std::make_shared<distributed::Group>());
}

BaseModel load_base(const Recipe& recipe, c10::Device device, BaseUse use, ModelText text,
                    const std::shared_ptr<distributed::Group>& ranks) {
  const Stopwatch watch;
  BaseModel base;
  base.path = model::resolve_model_path(recipe.model.path);
  base.tokenizer = std::move(text.tokenizer);
  base.has_adapters_tokenizer = text.is_adapters_tokenizer;
  base.chat_template = std::move(text.chat_template);
  const auto source = model::open_weights(base.path);
  const bool init = lora::init_changes_base(recipe.lora.init) && recipe.lora.from_adapter.empty();
  BaseInit base_init(recipe);
  model::ModelOptions options = recipe.model;
  options.dtype = resolved_model_dtype(recipe, *source);
  if (options.offload_dir.empty()) options.offload_dir = recipe.output.dir;  // of a run that trains
  base.model = model::load_model(*source, options, recipe.quantization, device,
                                 compute_dtype_of(recipe.train.compute_dtype, device),
                                 init ? base_init.maker() : model::WeightMaker(),
                                 placement_on(recipe, base.path, device, ranks->place()),
                                 trainer::shard_group(ranks));
  if (init) {
    base_init.add_packed_layers(*base.model);
    base_init.report();
    base.factors = base_init.factors();
    base.changed = base_init.changed_base();
    base.init_table = base_init.table_json();
  }
  if (base.model->architecture().has_encoder()) base.chat_template.reset();  // its rows have none
  if (base.tokenizer->vocab_size() > base.model->architecture().vocab_size) {
    log::warning("the tokenizer knows {} tokens, the model {}: the last ones cannot be used",
                 base.tokenizer->vocab_size(), base.model->architecture().vocab_size);
  }
  base.record.name = with_hub_id(recipe.model.name.empty() ? recipe.model.path : recipe.model.name);
  base.record.made_from = with_hub_id(recipe.made_from);
  base.record.path = base.path;
  const bool by_run = exporting::is_quantized_by_training(recipe.made_with);
  if (!by_run) {  // else its files hold what the run made of others
    const model::StoredKind stored = model::stored_kind(*source);
    base.record.stored_by = stored.method;
    base.record.stored_as = stored.text;
  }
  base.record.quantization = recorded(by_run ? recipe.made_with : recipe.quantization, *base.model);
  base.record.dtype = options.dtype;
  base.record.compute_dtype = resolved_compute_dtype(recipe.train.compute_dtype, device);
  if (init) base.record.init = recipe.lora.init;
  fit_to_adapter(recipe, use, base);
  base.record.hash = base.model->base_hash();
  io::require_mapped_unchanged();  // what lies in the files has been read once more
  log::info("base model {}: {} ({:.1f} s)", base.path, model::describe(*base.model),
            watch.seconds());
  return base;
}

bool is_changed_base(const std::string& directory) {
  return std::filesystem::exists(std::filesystem::path(directory) / kInitTable);
}

void adopt_base_origin(const std::string& directory, BaseModel& base) {
  base.record.init = lora::read_adapter_init(directory);
  if (is_changed_base(base.path) && !lora::init_changes_base(base.record.init))
    base.record.init = init_on_changed_base(directory, base.path, base.record.init);
  const auto record = lora::read_adapter_base(directory);
  if (!record || record->made_from.empty()) return;  // older versions recorded none
  if (record->made_from != base.record.name && is_base_of_record(base, *record))
    base.record.made_from = record->made_from;
}

bool adapter_holds_part_of(const BaseModel& base) {
  return lora::init_changes_base(base.record.init) || is_changed_base(base.path);
}

Recipe with_saved_base(Recipe recipe) {
  const std::string saved = saved_base(recipe);
  if (!std::filesystem::exists(std::filesystem::path(saved) / "config.json")) return recipe;
  recipe.made_from = recipe.model.name.empty() ? recipe.model.path : recipe.model.name;
  recipe.model.path = saved;
  recipe.model.name.clear();  // what it names is the model before
  recipe.made_with = recipe.quantization;
  recipe.quantization = {};
  // The files say how weights are stored, and not which products are made of those in 8 bits.
  if (recipe.made_with.method == "int8_weight_only")
    recipe.quantization.method = recipe.made_with.method;
  if (lora::init_changes_base(recipe.lora.init)) recipe.lora.init = "default";
  return recipe;
}

void save_base(const Recipe& recipe, BaseModel& base) {
  if (!base.changed && !recipe.output.save_base) return;
  const std::string directory = saved_base(recipe);
  if (base.path == directory) return;  // a resumed run reads it
  io::AtomicDirectory target(directory, io::AtomicDirectory::Existing::kReplace);
  exporting::write_quantized(target.path(), *base.model, recipe.quantization, *base.tokenizer,
                             base.path, model::dtype_from_string(base.record.dtype, "model.dtype"));
  // Else the run would train to its end, and nothing could read what it was trained on.
  check(hash_of_stored(target.path(), base.record.dtype) == base.record.hash,
        "{}: the base was not read back as it was written, and the run could not go on from it; "
        "nothing is left there",
        directory);
  if (base.changed) {
    io::write_file_atomically((std::filesystem::path(target.path()) / kInitTable).string(),
                              base.init_table);
  }
  if (holds_a_file(directory) && hashes_of(directory) == hashes_of(target.path())) {
    log::info("base model: {} holds it already", directory);
  } else {
    if (holds_a_file(directory))
      log::warning("{} holds another base than this run's; it is now in {}, which may be deleted",
                   directory, set_aside(recipe.output.dir, kSavedBase));
    target.commit();
    log::info("base model written to {}", directory);
  }
  if (!base.changed) return;
  base.record.made_from = base.record.name;
  base.record.name = base.record.path = directory;
  base.record.stored_by = base.record.stored_as = "";  // of the files before
}

}  // namespace qlora::recipes
