#include "cli/plan.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/arena_allocator.h"
#include "base/byte_size.h"
#include "base/device.h"
#include "base/error.h"
#include "base/processor_share.h"
#include "io/json_text.h"
#include "model/model_header.h"
#include "recipes/before_loading.h"
#include "recipes/options_from_files.h"
#include "recipes/plan/cached_rows.h"
#include "recipes/plan/free_memory.h"
#include "recipes/plan/placement.h"
#include "recipes/plan/plan.h"
#include "recipes/yaml/recipe_yaml.h"
#include "trainer/fetch_plan.h"
#include "trainer/memory_fit.h"
#include "trainer/planned_adapters.h"
#include "trainer/rank_plan.h"
#include "trainer/time_plan.h"

namespace {

using Json = nlohmann::ordered_json;
using qlora::ConfigError;
using qlora::recipes::Recipe;
using qlora::trainer::MemoryFit;
using qlora::trainer::MemoryLine;
using qlora::trainer::RankTime;
using qlora::trainer::TimePlan;

struct PlanArguments {
  std::string recipe, device, fit, bandwidth;
  int ranks = 1;
  std::vector<std::string> overrides;
  bool json = false, no_time = false;
};

// What is planned, and what is known of the machine it is planned for.
struct Planned {
  Recipe recipe;
  qlora::model::ModelHeader header;
  bool on_gpu = false;
  std::optional<c10::Device> device;  // none: a GPU that is not here
  std::optional<int64_t> limit;       // of --fit
  MemoryFit fit;                      // of a rank
  double bandwidth = 0;               // of each rank each way, bytes a second; 0: not given
  std::optional<TimePlan> time;       // of what a rank computes
  std::string no_time;                // why there is none
  std::optional<qlora::recipes::CachedRows> rows;
  // Of the pass over all rows before the first step (train.objective dpo).
  double reference_seconds = 0;
};

int64_t fit_limit(const std::string& text) {
  const std::optional<int64_t> bytes = qlora::byte_size(text);
  if (!bytes)
    qlora::fail<ConfigError>(
        "--fit must be auto or a size above 0 such as 16GB (units: {}), found '{}'",
        qlora::kSizeUnits, text);
  return *bytes;
}

double bandwidth_of(const PlanArguments& arguments) {
  if (arguments.bandwidth.empty()) return 0;
  const std::optional<double> bandwidth = qlora::bytes_a_second(arguments.bandwidth);
  if (!bandwidth)
    qlora::fail<ConfigError>(
        "--bandwidth must be a rate above 0 such as 10GB/s or 10Gbit/s (units: KB, MB, GB, KiB, "
        "MiB, GiB, Kbit, Mbit or Gbit, and /s), found '{}'",
        arguments.bandwidth);
  return *bandwidth;
}

void choose_device(const PlanArguments& arguments, Planned& planned) {
  if (!arguments.device.empty()) planned.recipe.train.device = arguments.device;
  const std::string& name = planned.recipe.train.device;
  planned.on_gpu = name.starts_with("cuda") || (name == "auto" && qlora::cuda_available());
  if (!planned.on_gpu || qlora::cuda_available()) planned.device = qlora::device_from_string(name);
}

std::optional<int64_t> limit_of(const PlanArguments& arguments, const Planned& planned) {
  if (arguments.fit.empty()) return std::nullopt;
  if (arguments.fit != "auto") return fit_limit(arguments.fit);
  if (!planned.device)
    throw ConfigError("--fit auto needs the GPU at hand; give its memory instead, e.g. --fit 16GB");
  const int64_t free_bytes = qlora::recipes::free_memory_of_rank(*planned.device, arguments.ranks);
  return static_cast<int64_t>(qlora::trainer::kUsableShare * static_cast<double>(free_bytes));
}

void plan_memory(const PlanArguments& arguments, Planned& planned) {
  const Recipe& recipe = planned.recipe;
  qlora::recipes::require_own_devices(recipe, planned.on_gpu, arguments.ranks);
  qlora::trainer::PlannedRun run =
      qlora::recipes::planned_run(recipe, planned.header, planned.on_gpu, arguments.ranks);
  run.rank_rate = planned.bandwidth;
  const int64_t accumulation = recipe.train.gradient_accumulation_steps;
  if (planned.limit) {
    planned.fit = qlora::trainer::fit_memory(run, accumulation, *planned.limit);
    return;
  }
  if (recipe.train.gradient_checkpointing == "auto" && planned.device)
    run.recompute_layers = qlora::trainer::choose_recomputation(
        "auto", run,
        qlora::recipes::free_within_limit(
            recipe, run, qlora::recipes::free_memory_of_rank(*planned.device, arguments.ranks)));
  planned.fit = {run, accumulation, qlora::trainer::plan_memory(run), true};
}

void plan_time(const PlanArguments& arguments, Planned& planned) {
  if (arguments.no_time) {
    planned.no_time = "not asked for";
  } else if (!planned.device) {
    planned.no_time = "needs the device, to measure on it";
  } else if (planned.fit.plan.peak() > qlora::free_memory_bytes(*planned.device)) {
    planned.no_time = "not measured: the run does not fit into what is free here";
  } else {
    qlora::use_arena_for_cpu_tensors();
    qlora::grow_gpu_segments();
    qlora::set_num_threads(planned.recipe.train.threads);
    planned.time = qlora::trainer::plan_time(
        {planned.fit.run, planned.fit.run.micro_batches_a_rank,
         qlora::recipes::quantization_of(planned.recipe, planned.header),
         qlora::recipes::packed_maker(planned.recipe, planned.header), *planned.device,
         qlora::trainer::kCalibrationSeconds, qlora::recipes::weights_file(planned.header)});
    planned.reference_seconds =
        qlora::recipes::reference_seconds(planned.recipe, *planned.time, planned.rows) /
        static_cast<double>(planned.fit.run.ranks);
  }
}

// Of the adapters, that the ranks add.
int64_t bytes_sent(const Planned& planned) {
  const qlora::trainer::PlannedRun& run = planned.fit.run;
  return qlora::trainer::sum_bytes_sent(qlora::trainer::planned_adapters(run).numbers(), run.ranks);
}

// Of the other ranks' parts of the base.
qlora::trainer::FetchPlan gathers_of(const Planned& planned) {
  const qlora::trainer::PlannedRun& run = planned.fit.run;
  return qlora::trainer::plan_gathers(run, run.micro_batches_a_rank);
}

// Of a step of all ranks.
RankTime rank_time(const Planned& planned) {
  return qlora::trainer::rank_time(
      planned.time->seconds_a_step,
      planned.fit.gradient_accumulation_steps * planned.fit.run.tokens(), bytes_sent(planned),
      planned.bandwidth);
}

// The recipe keys that the fit changes or decides.
std::vector<std::pair<std::string, std::string>> keys_of(const Planned& planned) {
  const MemoryFit& fit = planned.fit;
  const auto& recomputed = fit.run.recompute_layers;
  const int64_t count = recomputed.count(planned.header.architecture.num_layers());
  const bool some = recomputed.any() && !recomputed.all();
  std::vector<std::pair<std::string, std::string>> keys = {
      {"train.micro_batch_size", std::to_string(fit.run.micro_batch_size)},
      {"train.gradient_accumulation_steps", std::to_string(fit.gradient_accumulation_steps)},
      {"train.gradient_checkpointing",
       some ? std::to_string(count) : (recomputed.all() ? "true" : "false")}};
  if (fit.run.optim.paged_resident_bytes != planned.recipe.optim.paged_resident_bytes) {
    keys.emplace_back("optim.name", fit.run.optim.name);
    keys.emplace_back("optim.paged_resident_bytes",
                      std::to_string(fit.run.optim.paged_resident_bytes));
  }
  return keys;
}

Json rank_facts(const Planned& planned) {
  const MemoryFit& fit = planned.fit;
  Json facts = {{"count", fit.run.ranks},
                {"micro_batches_a_rank", fit.run.micro_batches_a_rank},
                {"peak_bytes_of_all", fit.run.ranks * fit.plan.peak()},
                {"bytes_sent_a_step", bytes_sent(planned)},
                {"bandwidth", nullptr},
                {"time", nullptr}};
  if (planned.bandwidth > 0) facts["bandwidth"] = planned.bandwidth;
  if (const auto gathers = gathers_of(planned); gathers.any())
    facts["gathers"] = {{"bytes_a_step", gathers.rank_bytes},
                        {"bytes_a_second", gathers.rank_rate},
                        {"rate_is_assumed", gathers.rank_rate_is_assumed},
                        {"seconds_a_step", gathers.seconds}};
  if (!planned.time) return facts;
  const RankTime time = rank_time(planned);
  facts["time"] = {{"sum_seconds", time.sum_seconds},
                   {"seconds_a_step", time.seconds_a_step},
                   {"tokens_a_second", time.tokens_a_second}};
  return facts;
}

Json facts_of(const Planned& planned) {
  const MemoryFit& fit = planned.fit;
  Json facts = {{"model", planned.header.place},
                {"device", planned.on_gpu ? "cuda" : "cpu"},
                {"micro_batch_size", fit.run.micro_batch_size},
                {"sequence_length", fit.run.sequence_length},
                {"gradient_accumulation_steps", fit.gradient_accumulation_steps},
                {"recomputed_layers",
                 fit.run.recompute_layers.count(planned.header.architecture.num_layers())}};
  facts["memory"] = Json::array();
  for (const MemoryLine& line : fit.plan.lines)
    facts["memory"].push_back({{"purpose", line.purpose},
                               {"bytes", line.bytes},
                               {"phase", qlora::trainer::name_of(line.phase)}});
  facts["peak_bytes"] = fit.plan.peak();
  if (fit.run.placement.elsewhere()) facts["placement"] = fit.run.placement.to_text();
  if (planned.limit) {
    facts["fit"] = {{"limit_bytes", *planned.limit}, {"fits", fit.fits}, {"keys", Json::object()}};
    for (const auto& [key, value] : keys_of(planned)) facts["fit"]["keys"][key] = value;
  }
  if (planned.rows)
    facts["rows"] = {{"examples", planned.rows->examples}, {"tokens", planned.rows->tokens}};
  if (fit.run.ranks > 1) facts["ranks"] = rank_facts(planned);
  facts["time"] = nullptr;
  if (!planned.time) return facts;
  facts["time"] = {{"seconds_a_step", planned.time->seconds_a_step},
                   {"tokens_a_second", planned.time->tokens_a_second},
                   {"calibration_seconds", planned.time->calibration_seconds},
                   {"taken_by_others", planned.time->taken_by_others},
                   {"reference_seconds", planned.reference_seconds},
                   {"stages", Json::object()}};
  for (const auto& stage : planned.time->stages)
    facts["time"]["stages"][stage.stage] = stage.seconds;
  if (const auto& fetch = planned.time->fetch; fetch.any())
    facts["time"]["fetch"] = {{"seconds_a_step", fetch.seconds},
                              {"host_bytes_a_step", fetch.host_bytes},
                              {"disk_bytes_a_step", fetch.disk_bytes},
                              {"host_bytes_a_second", fetch.host_rate},
                              {"disk_bytes_a_second", fetch.disk_rate},
                              {"disk_rate_is_assumed", fetch.disk_rate_is_assumed}};
  return facts;
}

// Memory and messages of several ranks.
void print_ranks(const Planned& planned) {
  const qlora::trainer::PlannedRun& run = planned.fit.run;
  if (run.ranks == 1) return;
  fmt::print("ranks: {}, each with {} of {} micro-batches a step and the memory above{}\n",
             run.ranks, run.micro_batches_a_rank, planned.fit.gradient_accumulation_steps,
             planned.on_gpu
                 ? ""
                 : fmt::format("; all of them on one machine: {:.0f} MB",
                               static_cast<double>(run.ranks * planned.fit.plan.peak()) / 1e6));
  if (const auto gathers = gathers_of(planned); gathers.any())
    fmt::print("gathering of the other ranks' parts of the base: {}, beside the products\n",
               gathers.to_text());
  fmt::print("sums of gradients: each rank sends {:.1f} MB a step and receives as much\n",
             static_cast<double>(bytes_sent(planned)) / 1e6);
}

std::string of_all_ranks(const Planned& planned, const RankTime& time) {
  if (planned.fit.run.ranks == 1) return "";
  if (planned.bandwidth == 0)
    return fmt::format(
        " of {} ranks, without what their sums take, for which --bandwidth is needed",
        planned.fit.run.ranks);
  return fmt::format(" of {} ranks, with {:.3f} s for their sums", planned.fit.run.ranks,
                     time.sum_seconds);
}

void print_time(const Planned& planned) {
  if (!planned.time) {
    fmt::print("time: {}\n", planned.no_time);
    return;
  }
  const TimePlan& time = *planned.time;
  for (const auto& stage : time.stages)
    fmt::print("  {:<34}{:>10.3f} s\n", stage.stage, stage.seconds);
  const bool measured = time.stages.front().stage != qlora::trainer::kProductsAlone;
  if (const std::string fetch = time.fetch.to_text(); !fetch.empty())
    fmt::print(
        "fetching of weights that lie elsewhere: {}; a step takes this or the above, "
        "whichever is longer\n",
        fetch);
  const RankTime all = rank_time(planned);
  fmt::print("time: {:.2f} s a step, {:.0f} tokens/s{} ({} on this machine in {:.1f} s)\n",
             all.seconds_a_step, all.tokens_a_second, of_all_ranks(planned, all),
             measured ? "measured" : "products alone, by what they take", time.calibration_seconds);
  if (const std::string busy = qlora::taken_sentence(time.taken_by_others); !busy.empty())
    fmt::print("time: {}\n", busy);
  if (planned.reference_seconds > 0)
    fmt::print("reference: about {:.0f} s before the first step, for a pass over all pairs\n",
               planned.reference_seconds);
}

void print_fit(const Planned& planned) {
  if (!planned.limit || !planned.fit.fits) return;
  fmt::print("fits into {:.0f} MB with\n", static_cast<double>(*planned.limit) / 1e6);
  for (const auto& [key, value] : keys_of(planned)) fmt::print("  {}: {}\n", key, value);
}

void need_fit(const Planned& planned) {
  if (!planned.limit || planned.fit.fits) return;
  const double limit = static_cast<double>(*planned.limit) / 1e6;
  const double peak = static_cast<double>(planned.fit.plan.peak()) / 1e6;
  qlora::fail<ConfigError>(
      "--fit: nothing fits into {:.0f} MB: the least, with the settings above, is {:.0f} MB more; "
      "lower data.sequence_length, lora.rank or what lora.targets names, or choose a smaller model",
      limit, peak - limit);
}

std::string recomputation_in_words(const Planned& planned) {
  const auto& recomputed = planned.fit.run.recompute_layers;
  const int64_t layers = planned.header.architecture.num_layers();
  if (!recomputed.any()) return "no recomputation";
  if (recomputed.all()) return "layers recomputed";
  return fmt::format("{} of {} layers recomputed", recomputed.count(layers), layers);
}

void print(const Planned& planned) {
  const MemoryFit& fit = planned.fit;
  fmt::print("{} on the {}: {} x {} tokens a micro-batch, {} micro-batches a step, {}\n",
             planned.header.place, planned.on_gpu ? "GPU" : "CPU", fit.run.sequences(),
             fit.run.sequence_length, fit.gradient_accumulation_steps,
             recomputation_in_words(planned));
  for (const MemoryLine& line : fit.plan.lines)
    fmt::print("  {:<34}{:>10.1f} MB  {}\n", line.purpose, static_cast<double>(line.bytes) / 1e6,
               qlora::trainer::name_of(line.phase));
  fmt::print("memory: {:.0f} MB at the peak\n", static_cast<double>(fit.plan.peak()) / 1e6);
  if (const std::string placement = fit.run.placement.to_text(); !placement.empty())
    fmt::print("placement: {}\n", placement);
  if (planned.rows)
    fmt::print("rows: {} examples, {} tokens, as the data cache has them\n", planned.rows->examples,
               planned.rows->tokens);
  print_fit(planned);
  print_ranks(planned);
  print_time(planned);
}

void plan(const PlanArguments& arguments) {
  Planned planned;
  planned.recipe = qlora::recipes::read_recipe(arguments.recipe, arguments.overrides);
  qlora::recipes::tell_left_out(planned.recipe);
  qlora::recipes::check_before_planning(planned.recipe);
  qlora::recipes::adopt_adapter_options(planned.recipe);
  planned.header = qlora::model::read_model_header(planned.recipe.model.path);
  planned.rows = qlora::recipes::cached_rows(planned.recipe, planned.header.architecture);
  choose_device(arguments, planned);
  planned.limit = limit_of(arguments, planned);
  planned.bandwidth = bandwidth_of(arguments);
  plan_memory(arguments, planned);
  plan_time(arguments, planned);
  if (arguments.json)
    fmt::print("{}\n", qlora::io::json_text_in_utf8(facts_of(planned), 2));
  else
    print(planned);
  need_fit(planned);
}

}  // namespace

void add_plan_command(qlora::cli::Command app) {
  auto arguments = std::make_shared<PlanArguments>();
  qlora::cli::Command command = app.add_subcommand(
      "plan", "Memory by purpose and time a step of a recipe, before anything is loaded");
  command
      .add_option("RECIPE", arguments->recipe,
                  "YAML file; of the model, config.json or the head of a .gguf file is enough")
      .required();
  command.add_option("--set", arguments->overrides, "key=value that replaces one of the recipe");
  command.add_option("--device", arguments->device,
                     "cpu or cuda, instead of train.device; a GPU need not be here");
  command.add_option("--fit", arguments->fit,
                     "Choose micro-batch, recomputation and paging for this memory: a size such "
                     "as 16GB, or auto");
  command
      .add_option("--ranks", arguments->ranks,
                  "How many processes, each with a device of its own, share the micro-batches of "
                  "a step (torchrun, mpirun, srun)")
      .positive();
  command.add_option("--bandwidth", arguments->bandwidth,
                     "What a rank sends to the others and receives at once, e.g. 10GB/s or "
                     "10Gbit/s: for the time of their sums, and of gathering a base that they "
                     "share, for which 10GB/s is assumed else");
  command.add_flag("--no-time", arguments->no_time, "Memory alone, without measuring");
  command.add_flag("--json", arguments->json, "As JSON");
  command.callback([arguments] { plan(*arguments); });
}
