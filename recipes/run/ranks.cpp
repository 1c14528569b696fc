#include "recipes/run/ranks.h"

#include <ATen/ATen.h>
#include <limits.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <utility>

#include "base/cgroup.h"
#include "base/device.h"
#include "base/error.h"
#include "base/log.h"
#include "io/hashing.h"
#include "io/json.h"
#include "model/placement.h"
#include "recipes/plan/plan.h"
#include "recipes/yaml/recipe_yaml.h"
#include "trainer/train_state_json.h"

namespace qlora::recipes {
namespace {

// Which recipe and program this is; where and when the run writes is rank 0's alone to say.
std::string what_runs(Recipe recipe) {
  recipe.output = {};
  recipe.train.device = "auto";
  return fmt::format("program: {}\n{}", QLORA_VERSION, write_recipe(recipe));
}

// The cores that this process may use, as text.
std::string affinity() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof(cores), &cores) != 0) return "";
  std::string text;
  for (int core = 0; core < CPU_SETSIZE; ++core) text += CPU_ISSET(core, &cores) ? '1' : '0';
  return text;
}

// Exact in a double.
double number_of(const std::string& text) {
  return static_cast<double>(std::hash<std::string>()(text) >> 11);
}

// Whether another rank of this machine may use other cores. All ranks ask.
bool is_bound_to_own_cores(distributed::Group& group) {
  std::array<char, HOST_NAME_MAX + 1> host{};
  gethostname(host.data(), host.size() - 1);
  const at::Tensor all = at::zeros({group.size(), 2}, at::kDouble);
  const auto* numbers = all.const_data_ptr<double>();
  const at::Tensor own = all[group.rank()];
  own[0] = number_of(host.data());
  own[1] = number_of(affinity());
  group.sum(all);
  const double* mine = numbers + 2 * static_cast<ptrdiff_t>(group.rank());
  for (const double* other = numbers; other != numbers + all.numel(); other += 2)
    if (other[0] == mine[0] && other[1] != mine[1]) return true;
  return false;
}

void hash_tensor(const at::Tensor& tensor, io::Hasher& hasher) {
  const at::Tensor bytes = tensor.cpu().contiguous();
  hasher.update(std::span(static_cast<const std::byte*>(bytes.const_data_ptr()), bytes.nbytes()));
}

}  // namespace

std::shared_ptr<distributed::Group> meet_ranks(const Recipe& recipe) {
  const distributed::Place place = distributed::place_from_environment();
  if (place.size == 1) {
    if (model::shares_blocks(recipe.model))
      log::warning(
          "model.device_map: ranks is for several, which keep blocks together, and this run has "
          "one: they all lie on its device; start it with torchrun, mpirun or srun");
    return std::make_shared<distributed::Group>();
  }
  if (place.rank > 0) log::speak_as_rank(place.rank);
  const int64_t own = micro_batches_a_rank(recipe, place.size);
  auto group =
      std::make_shared<distributed::Group>(place, std::chrono::seconds(recipe.train.rank_timeout));
  log::info("{} ranks, {} on this machine, {} of {} micro-batches a step each", place.size,
            place.local_size, own, recipe.train.gradient_accumulation_steps);
  return group;
}

void require_same_recipe(distributed::Group& group, const Recipe& recipe) {
  group.require_same("the recipe and the program", what_runs(recipe));
}

std::string device_of_rank(const std::string& device, const distributed::Place& place) {
  if (place.size == 1 || num_gpus() == 0 || (device != "auto" && device != "cuda")) return device;
  return "cuda:" + std::to_string(place.local_rank % num_gpus());
}

int cores_of_rank(distributed::Group& group) {
  if (group.size() == 1 || is_bound_to_own_cores(group)) return usable_cores();
  return std::max(usable_cores() / group.place().local_size, 1);
}

void require_same_start(distributed::Group& group, const std::string& base_hash,
                        const data::PreparedData& data) {
  group.require_same("the base model", base_hash);
  group.require_same("the rows of data.train", data.fingerprint());
  group.require_same("the rows of data.eval", data::examples_fingerprint(data.eval));
}

void require_same_state(distributed::Group& group, const lora::AdapterSet& adapters,
                        const optim::Optimizer& optimizer) {
  if (group.size() == 1) return;
  io::Hasher hasher;
  hash_tensor(adapters.values(), hasher);
  for (const auto& [name, tensor] : optimizer.state()) hash_tensor(tensor, hasher);
  group.require_same(
      "the trained numbers (other processors or thread counts round differently; else memory is "
      "faulty)",
      hasher.hex());
}

void hand_on_state(distributed::Group& group, trainer::TrainState& state) {
  if (group.size() == 1) return;
  const std::string text = group.broadcast(group.leads() ? trainer::to_json(state) : "");
  if (group.leads()) return;
  const nlohmann::json json = nlohmann::json::parse(text);
  state = trainer::train_state_from_json(io::JsonNode(json, "the state of rank 0"));
}

void hand_on_checkpoint(distributed::Group& group, const trainer::CheckpointParts& parts) {
  if (group.size() == 1) return;
  hand_on_state(group, parts.state);
  group.broadcast(parts.adapters.values());
  optim::NamedTensors state = parts.optimizer.state();
  for (auto& [name, tensor] : state) {
    tensor = tensor.contiguous();
    group.broadcast(tensor);
  }
  if (!group.leads()) parts.optimizer.load_state(state, parts.state.optimizer_steps);
  parts.adapters.publish();
}

}  // namespace qlora::recipes
