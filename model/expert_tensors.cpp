#include "model/expert_tensors.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <charconv>

#include "base/error.h"
#include "lora/expert_names.h"
#include "lora/rows_in_turn.h"
#include "model/mxfp4.h"
#include "model/read_tensor.h"
#include "quant/formats/mxfp4_weight.h"

namespace qlora::model {
namespace {

struct Sizes {
  int64_t out, in;
};

Sizes sizes_of(const ExpertTensor& t) {
  const LinearSpec& linear = t.is_gate_up ? t.spec->gate_up : t.spec->down;
  return {linear.out, linear.in};
}

// The expert's part of a stack, which must be [experts, ...shape].
io::TensorView part_of(const io::TensorView& stack, const ExpertTensor& t,
                       const std::vector<int64_t>& shape) {
  std::vector<int64_t> wanted = shape;
  wanted.insert(wanted.begin(), t.spec->routing.experts);
  if (stack.shape != wanted)
    fail<FormatError>("{}: tensor {} must have shape [{}], found [{}]", stack.file, stack.name,
                      fmt::join(wanted, ", "), fmt::join(stack.shape, ", "));
  const size_t size = stack.bytes.size() / static_cast<size_t>(wanted[0]);
  io::TensorView part = stack;
  part.shape = shape;
  part.bytes = stack.bytes.subspan(static_cast<size_t>(t.expert) * size, size);
  return part;
}

// Its own tensors: gate and up, or down.
ExpertParts separate(const ExpertTensor& t, const FindView& find) {
  ExpertParts parts;
  for (const std::string& module : separate_modules(t)) {
    const io::TensorView* view = find(module + ".weight");
    if (!view) return {};
    parts.views.push_back(*view);
  }
  return parts;
}

ExpertParts mxfp4_blocks(const ExpertTensor& t, const std::string& name, const FindView& find) {
  const io::TensorView *blocks = find(name + "_blocks"), *scales = find(name + "_scales");
  if (!blocks || !scales) return {};
  const auto [out, in] = sizes_of(t);
  if (in % kMxfp4Block != 0)
    fail<FormatError>("{}: tensor {} holds blocks of {} columns, and the experts have {}",
                      blocks->file, blocks->name, kMxfp4Block, in);
  ExpertParts parts;
  parts.views = {part_of(*blocks, t, {out, in / kMxfp4Block, kMxfp4Block / 2}),
                 part_of(*scales, t, {out, in / kMxfp4Block})};
  parts.in_turn = t.is_gate_up;
  parts.is_mxfp4 = true;
  return parts;
}

}  // namespace

std::string numbered(std::string name, int64_t expert) {
  if (const size_t at = name.find("{}"); at != std::string::npos)
    name.replace(at, 2, std::to_string(expert));
  return name;
}

std::vector<std::string> separate_modules(const ExpertTensor& t) {
  const ExpertFiles& files = t.spec->files;
  if (files.gate.empty()) return {};
  const auto module = [&t](const std::string& name) { return t.block + numbered(name, t.expert); };
  if (!t.is_gate_up) return {module(files.down)};
  return {module(files.gate), module(files.up)};
}

std::optional<ExpertTensor> expert_tensor(const Architecture& a, const std::string& name) {
  const size_t dot = name.rfind('.');
  const std::string& prefix = a.decoder.prefix.hugging_face;
  const auto expert = lora::expert_name(name.substr(0, dot));
  if (!expert || !name.starts_with(prefix)) return std::nullopt;
  const std::string number =
      name.substr(prefix.size(), name.find('.', prefix.size()) + 1 - prefix.size());
  int64_t layer = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), layer);
  if (error != std::errc() || *end != '.' || layer >= a.decoder.num_layers()) return std::nullopt;
  for (const Branch& branch : a.decoder.block(layer).branches) {
    const ExpertsSpec* spec = branch.experts();
    if (!spec || expert->index >= spec->routing.experts) continue;
    for (const bool is_gate_up : {true, false}) {
      const std::string module =
          prefix + number +
          numbered((is_gate_up ? spec->gate_up : spec->down).names.hugging_face, expert->index);
      for (const bool is_bias : {false, true})
        if (name == module + (is_bias ? ".bias" : ".weight"))
          return ExpertTensor{spec,          prefix + number, a.decoder.prefix.gguf + number,
                              expert->index, is_gate_up,      is_bias};
    }
  }
  return std::nullopt;
}

ExpertParts in_hugging_face(const ExpertTensor& t, const FindView& find) {
  if (!t.is_bias)
    if (ExpertParts parts = separate(t, find); !parts.views.empty()) return parts;
  const ExpertFiles& files = t.spec->files;
  const std::string stacked = t.is_gate_up ? files.stacked_gate_up : files.stacked_down;
  if (stacked.empty()) return {};
  const auto [out, in] = sizes_of(t);
  const std::string name = t.block + stacked;
  if (!t.is_bias)
    if (ExpertParts parts = mxfp4_blocks(t, name, find); !parts.views.empty()) return parts;
  const io::TensorView* stack = find(t.is_bias ? name + "_bias" : name);
  if (!stack) return {};
  ExpertParts parts;
  parts.by_inputs = files.stacked_by_inputs && !t.is_bias;
  parts.in_turn = files.stacked_by_inputs && t.is_gate_up;
  parts.views = {part_of(*stack, t,
                         t.is_bias         ? std::vector{out}
                         : parts.by_inputs ? std::vector{in, out}
                                           : std::vector{out, in})};
  return parts;
}

ExpertParts in_gguf(const ExpertTensor& t, const FindView& find) {
  const std::string suffix = t.is_bias ? ".bias" : ".weight";
  const std::vector<std::string> names =
      t.is_gate_up ? std::vector<std::string>{"ffn_gate_exps", "ffn_up_exps"}
                   : std::vector<std::string>{"ffn_down_exps"};
  const auto [out, in] = sizes_of(t);
  const int64_t rows = out / static_cast<int64_t>(names.size());
  ExpertParts parts;
  for (const std::string& name : names) {
    const io::TensorView* stack = find(t.gguf_block + name + suffix);
    if (!stack) return {};
    parts.views.push_back(
        part_of(*stack, t, t.is_bias ? std::vector{rows} : std::vector{rows, in}));
  }
  return parts;
}

at::Tensor read_expert(const ExpertTensor& t, const ExpertParts& parts, at::ScalarType dtype) {
  const auto [out, in] = sizes_of(t);
  at::Tensor tensor;
  if (parts.is_mxfp4) {
    tensor = decode_mxfp4(parts.views[0], parts.views[1]).to(dtype);
  } else {
    std::vector<at::Tensor> rows;
    const int64_t height = out / static_cast<int64_t>(parts.views.size());
    for (const io::TensorView& view : parts.views)
      rows.push_back(read_tensor(view,
                                 t.is_bias         ? std::vector{height}
                                 : parts.by_inputs ? std::vector{in, out}
                                                   : std::vector{height, in},
                                 dtype));
    tensor = rows.size() == 1 ? rows[0] : at::cat(rows);
  }
  if (parts.by_inputs) tensor = tensor.t();
  return (parts.in_turn ? lora::rows_in_halves(tensor) : tensor).contiguous();
}

std::unique_ptr<quant::FrozenWeight> read_packed_expert(const ExpertParts& parts,
                                                        at::Device device) {
  if (!parts.is_mxfp4) return nullptr;
  auto [blocks, scales] = read_mxfp4(parts.views[0], parts.views[1]);
  if (parts.in_turn) {
    blocks = lora::rows_in_halves(blocks);
    scales = lora::rows_in_halves(scales);
  }
  return std::make_unique<quant::Mxfp4Weight>(blocks.to(device), scales.to(device));
}

}  // namespace qlora::model
