#include "recipes/run/machine.h"

#include "base/arena_allocator.h"
#include "base/device.h"
#include "base/instruction_set.h"
#include "base/log.h"
#include "recipes/models/compute_dtype.h"

namespace qlora::recipes {

c10::Device set_up_machine(const Recipe& recipe, const trainer::TrainState& state) {
  use_arena_for_cpu_tensors();
  grow_gpu_segments();
  set_num_threads(state.choices.threads);
  log::info("device {}, {} threads, {}", state.choices.device, state.choices.threads,
            state.choices.instruction_set);
  const c10::Device device(state.choices.device);
  log::write_info(
      compute_dtype_sentence(recipe.train.compute_dtype, state.choices.compute_dtype, device));
  if (device.is_cpu() && instruction_set() == InstructionSet::kBaseline)
    log::warning("products without AVX2 ({}): a step takes about five times as long as with it",
                 describe_instruction_set());
  return device;
}

}  // namespace qlora::recipes
