#include "model/position_limit.h"

#include <fmt/format.h>

#include <cmath>

namespace qlora::model {
namespace {

constexpr const char* kKey = "max_position_embeddings";

// The longer of what config.json says and what a context stretched by the factor comes to.
PositionLimit stretched(const RopeConfig& rope, double context, int64_t max_positions) {
  const auto tokens = static_cast<int64_t>(std::llround(context * rope.factor));
  if (tokens <= max_positions) return {max_positions, kKey};
  return {tokens, fmt::format("RoPE scaling {}: {} times {}", rope.type, rope.factor, context)};
}

PositionLimit limit_of(const RopeConfig& rope, int64_t max_positions) {
  if (rope.type == "dynamic") return {};
  if (rope.type == "linear")
    return stretched(rope, static_cast<double>(max_positions), max_positions);
  if (rope.type == "yarn") return stretched(rope, rope.original_max_positions, max_positions);
  const bool is_scaled = rope.type == "llama3" || rope.type == "longrope";
  if (is_scaled && static_cast<double>(max_positions) <= rope.original_max_positions)
    return stretched(rope, rope.original_max_positions, max_positions);
  return {max_positions, kKey};
}

}  // namespace

std::string PositionLimit::sentence() const {
  if (said_by == kKey) return fmt::format("{} of the model is {}", kKey, tokens);
  return fmt::format("the model reaches {} tokens ({})", tokens, said_by);
}

PositionLimit position_limit(const Architecture& architecture) {
  if (architecture.embedding.positions.present()) return {architecture.longest_document(), kKey};
  if (architecture.alibi.present()) return {};
  if (architecture.rotaries.empty()) return {architecture.max_positions, kKey};
  PositionLimit least;
  for (const RotarySpec& rotary : architecture.rotaries)
    if (PositionLimit limit = limit_of(rotary.rope, architecture.max_positions);
        limit.tokens < least.tokens)
      least = std::move(limit);
  return least;
}

}  // namespace qlora::model
