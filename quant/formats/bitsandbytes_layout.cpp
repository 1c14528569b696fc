#include "quant/formats/bitsandbytes_layout.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/json.h"
#include "io/json_text.h"
#include "io/mapped_file.h"
#include "quant/formats/four_bit_weight.h"
#include "quant/tensor_file.h"

namespace qlora::quant {
namespace {

constexpr const char* kState = ".quant_state.bitsandbytes__";

const char* code_name(FourBitCode code) { return code == FourBitCode::kNf4 ? "nf4" : "fp4"; }

const char* dtype_name(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return "bfloat16";
  return dtype == at::kHalf ? "float16" : "float32";
}

// The parts of one layer, each to be taken once.
class Parts {
 public:
  Parts(const io::TensorFile& file, std::string module, std::set<std::string>& read)
      : file_(file), module_(std::move(module)), read_(read) {}

  const io::TensorView* find(const std::string& suffix) const {
    return file_.find(module_ + suffix);
  }

  const io::TensorView& take(const std::string& suffix) {
    const io::TensorView* view = find(suffix);
    if (!view)
      fail<FormatError>("{}: the quantized layer {} must have a tensor {}{}",
                        file_.find(module_ + ".weight")->file, module_, module_, suffix);
    read_.insert(view->name);
    return *view;
  }

  at::Tensor take(const std::string& suffix, io::DType dtype, int64_t count) {
    const io::TensorView& view = take(suffix);
    if (view.dtype != dtype || view.num_elements() != count) {
      fail<FormatError>("{}: tensor {} must hold {} elements of {}, found {} of {}", view.file,
                        view.name, count, io::dtype_name(dtype), view.num_elements(),
                        io::dtype_name(view.dtype));
    }
    at::Tensor tensor = tensor_of(view).flatten();
    if (dtype == io::DType::kF32 && !at::isfinite(tensor).all().item<bool>())
      fail<FormatError>("{}: tensor {} holds a value that is NaN or infinite; the file is damaged",
                        view.file, view.name);
    io::drop_pages(view.bytes);
    return tensor;
  }

  // FormatError if the file has something of this layer that nobody took.
  void require_all_taken() const {
    const std::string prefix = module_ + ".weight.";
    for (auto part = file_.index.lower_bound(prefix);
         part != file_.index.end() && part->first.starts_with(prefix); ++part)
      if (!read_.contains(part->first))
        fail<FormatError>("{}: tensor {} is no part of a 4-bit layer that is known here",
                          file_.tensors[part->second].file, part->first);
  }

 private:
  const io::TensorFile& file_;
  std::string module_;
  std::set<std::string>& read_;
};

at::ScalarType dtype_of(const io::JsonNode& node) {
  const std::string name = node.as_string();
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float16") return at::kHalf;
  if (name != "float32") node.reject("bfloat16, float16 or float32");
  return at::kFloat;
}

// All elements of the packed weight as bytes, whatever dtype they are stored as.
at::Tensor packed_bytes(const io::TensorView& view, int64_t elements) {
  const auto count = static_cast<int64_t>(view.bytes.size());
  if (count != elements / 2 + elements % 2) {
    fail<FormatError>("{}: tensor {} must hold {} weights of 4 bits in {} bytes, found {}",
                      view.file, view.name, elements, elements / 2 + elements % 2, count);
  }
  at::Tensor bytes = at::empty({count}, at::kByte);
  std::memcpy(bytes.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  io::drop_pages(view.bytes);
  return bytes;
}

DoubleQuantized read_scales(Parts& parts, const io::JsonNode& state, int64_t blocks,
                            at::Device device) {
  DoubleQuantized scales;
  const io::JsonNode size = state.at("nested_blocksize");
  scales.block_size = size.as_integer(64, 4096);
  if (scales.block_size & (scales.block_size - 1)) size.reject("a power of two");
  if (const auto dtype = state.find("nested_dtype"); dtype && dtype->as_string() != "float32")
    dtype->reject("float32");
  const int64_t nested = (blocks + scales.block_size - 1) / scales.block_size;
  scales.codes = parts.take(".weight.absmax", io::DType::kU8, blocks).to(device);
  scales.nested_absmax = parts.take(".weight.nested_absmax", io::DType::kF32, nested).to(device);
  scales.map = parts.take(".weight.nested_quant_map", io::DType::kF32, 256).to(device);
  scales.offset = at::full({}, state.at("nested_offset").as_number(), at::kFloat).to(device);
  return scales;
}

std::unique_ptr<FrozenWeight> read_four_bit(Parts& parts, FourBitCode code, WeightShape sizes,
                                            at::Device device) {
  const io::TensorView& stored = parts.take(std::string(".weight") + kState + code_name(code));
  const std::string_view text(reinterpret_cast<const char*>(stored.bytes.data()),
                              stored.bytes.size());
  const std::string place = stored.file + ": " + stored.name;
  const nlohmann::json document = io::parse_json(text, place);
  const io::JsonNode state(document, place);
  if (const io::JsonNode type = state.at("quant_type"); type.as_string() != code_name(code))
    type.reject(fmt::format("'{}', as the tensor's name says", code_name(code)));
  const io::JsonNode shape = state.at("shape");
  if (shape.value() != nlohmann::json(sizes.sizes()))
    shape.reject(fmt::format("[{}]", fmt::join(sizes.sizes(), ", ")));

  FourBitTensor quantized;
  quantized.layout.code = code;
  const io::JsonNode block_size = state.at("blocksize");
  quantized.layout.block_size = block_size.as_integer(32, 4096);
  if (quantized.layout.block_size & (quantized.layout.block_size - 1))
    block_size.reject("a power of two");
  quantized.num_elements = sizes.num_elements();
  quantized.packed = packed_bytes(parts.take(".weight"), sizes.num_elements()).to(device);
  if (four_bit_code(parts.take(".weight.quant_map", io::DType::kF32, kNumFourBitCodes)) != code) {
    fail<FormatError>("{}: tensor {} is not the table of {}; weights of another code are not read",
                      stored.file, parts.take(".weight.quant_map").name, code_name(code));
  }
  if (state.find("nested_blocksize")) {
    quantized.scales = read_scales(parts, state, quantized.num_blocks(), device);
  } else {
    quantized.absmax =
        parts.take(".weight.absmax", io::DType::kF32, quantized.num_blocks()).to(device);
  }
  parts.require_all_taken();
  return std::make_unique<FourBitWeight>(std::move(quantized), sizes, dtype_of(state.at("dtype")));
}

std::unique_ptr<FrozenWeight> read_int8(Parts& parts, const WeightShape& shape,
                                        Int8Products products, at::Device device) {
  const io::TensorView& view = parts.take(".weight");
  if (view.dtype != io::DType::kI8 || view.shape != shape.sizes()) {
    fail<FormatError>("{}: tensor {} must be I8 [{}], found {} [{}]", view.file, view.name,
                      fmt::join(shape.sizes(), ", "), io::dtype_name(view.dtype),
                      fmt::join(view.shape, ", "));
  }
  if (parts.find(".weight_format") &&
      parts.take(".weight_format", io::DType::kU8, 1).item<uint8_t>() != 0) {
    fail<FormatError>(
        "{}: {} is stored in a tiled layout of old GPUs (weight_format is not 0); save the model "
        "again with a current bitsandbytes",
        view.file, view.name);
  }
  const at::Tensor absmax = parts.take(".SCB", io::DType::kF32, shape.num_rows());
  if ((absmax < 0).any().item<bool>())
    fail<FormatError>("{}: tensor {} holds a scale below 0; the file is damaged", view.file,
                      parts.find(".SCB")->name);
  const at::Tensor codes = tensor_of(view);
  io::drop_pages(view.bytes);
  return std::make_unique<Int8Weight>(Int8Tensor{codes.to(device), absmax.to(device)}, products);
}

}  // namespace

bool is_bitsandbytes_module(const io::TensorFile& file, const std::string& module) {
  const io::TensorView* weight = file.find(module + ".weight");
  return weight && (weight->dtype == io::DType::kI8 || weight->dtype == io::DType::kU8 ||
                    file.find(module + ".SCB") || file.find(module + ".weight.absmax"));
}

std::unique_ptr<FrozenWeight> read_bitsandbytes_module(const io::TensorFile& file,
                                                       const std::string& module, WeightShape shape,
                                                       Int8Products products, at::Device device,
                                                       std::set<std::string>& read) {
  Parts parts(file, module, read);
  for (const FourBitCode code : {FourBitCode::kNf4, FourBitCode::kFp4})
    if (parts.find(std::string(".weight") + kState + code_name(code)))
      return read_four_bit(parts, code, shape, device);
  if (parts.find(".SCB")) return read_int8(parts, shape, products, device);
  const io::TensorView& weight = parts.take(".weight");
  fail<FormatError>(
      "{}: {} is packed ({}) but has neither a quant_state.bitsandbytes__nf4 or __fp4 nor an SCB "
      "beside it",
      weight.file, weight.name, io::dtype_name(weight.dtype));
}

std::pair<std::string, at::Tensor> quant_state_tensor(const FourBitTensor& q,
                                                      const WeightShape& shape,
                                                      at::ScalarType dtype) {
  std::string text =
      fmt::format(R"({{"quant_type": "{}", "blocksize": {}, "dtype": "{}", "shape": [{}])",
                  code_name(q.layout.code), q.layout.block_size, dtype_name(dtype),
                  fmt::join(shape.sizes(), ", "));
  if (q.scales) {
    text += fmt::format(
        R"(, "nested_blocksize": {}, "nested_dtype": "float32", "nested_offset": {})",
        q.scales->block_size, io::json_text(nlohmann::json(q.scales->offset.item<double>())));
  }
  text += "}";
  at::Tensor bytes = at::empty({static_cast<int64_t>(text.size())}, at::kByte);
  std::memcpy(bytes.mutable_data_ptr(), text.data(), text.size());
  return {std::string("weight") + kState + code_name(q.layout.code), bytes};
}

}  // namespace qlora::quant
