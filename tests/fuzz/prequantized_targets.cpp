// Model directories that other tools quantized: a small Llama of one layer, one matrix of which
// lies packed in each of the formats that are read, and a small gpt-oss with experts in MXFP4.
#include <ATen/ATen.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <string>

#include "base/error.h"
#include "model/load.h"
#include "model/model_header.h"
#include "quant/tensor_file.h"
#include "tests/fuzz/target.h"
#include "tests/support/temp_dir.h"
#include "tests/support/torch_writer.h"

namespace qlora::fuzz {
namespace {

using quant::NamedTensors;

constexpr int64_t kOut = 32, kIn = 64, kGroup = 32, kGroups = kIn / kGroup;
constexpr const char* kModule = "model.layers.0.self_attn.q_proj";

// ---- the parts of the matrix [kOut, kIn]

struct Packed {
  std::string config;  // quantization_config
  NamedTensors parts;  // behind kModule + "."
  std::map<std::string, std::string> metadata = {};
};

at::Tensor words(at::IntArrayRef shape) { return at::randint(0, 1 << 30, shape, at::kInt); }
at::Tensor bytes(at::IntArrayRef shape) { return at::randint(0, 100, shape, at::kByte); }
at::Tensor scales(at::IntArrayRef shape, at::ScalarType type = at::kHalf) {
  return ((at::rand(shape) + 0.1) * 0.01).to(type);
}
at::Tensor group_of_columns() { return at::arange(kIn).div(kGroup, "floor").to(at::kInt); }
at::Tensor shape_of_matrix() { return at::tensor({kOut, kIn}, at::kLong); }
at::Tensor number(int value) { return at::full({}, value, at::kInt); }
at::Tensor flag(bool value) { return at::full({}, value ? 1 : 0, at::kByte); }
at::Tensor text(const std::string& value) {
  return at::tensor(std::vector<uint8_t>(value.begin(), value.end()), at::kByte);
}
// Words of `bits` wide numbers.
constexpr int64_t words_for(int64_t numbers, int bits) { return (numbers * bits + 31) / 32; }

std::vector<Packed> gptq() {
  const auto parts = [](int bits, const at::Tensor& group_of) {
    return NamedTensors{
        {"qweight", words({words_for(kIn, bits), kOut})},
        {"qzeros", at::full({kGroups, words_for(kOut, bits)}, 0x77777777, at::kInt)},
        {"scales", scales({kGroups, kOut})},
        {"g_idx", group_of}};
  };
  return {{R"({"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": true, "desc_act": false,
               "checkpoint_format": "gptq", "dynamic": {"-:lm_head": {}}})",
           parts(4, group_of_columns())},
          {R"({"quant_method": "gptq", "bits": 3, "group_size": 32, "sym": false, "desc_act": true,
               "checkpoint_format": "gptq_v2"})",
           parts(3, group_of_columns().flip(0).contiguous())},
          {R"({"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "bits": 4,
               "group_size": 32, "sym": true, "extra_config": {"lm_head": {"bits": 16}}})",
           parts(4, group_of_columns())}};
}

std::vector<Packed> awq() {
  constexpr int64_t kZeroWords = 4;  // of a row of version gemv, for groups of 32
  return {{R"({"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": true,
               "version": "gemm", "modules_to_not_convert": ["lm_head"]})",
           {{"qweight", words({kIn, words_for(kOut, 4)})},
            {"qzeros", words({kGroups, words_for(kOut, 4)})},
            {"scales", scales({kGroups, kOut})}}},
          {R"({"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": true,
               "version": "gemv"})",
           {{"qweight", words({kOut, words_for(kIn, 4)})},
            {"qzeros", words({kOut, kZeroWords})},
            {"scales", scales({kOut, 8 * kZeroWords})}}}};
}

// Along the rows with 4 bits, and along the columns with 3, of which a word holds ten.
std::vector<Packed> hqq() {
  const auto layer = [](int bits, int group_size, int axis, const at::Tensor& codes) {
    const int64_t groups = kOut * kIn / group_size;
    const std::vector<int64_t> shape =
        axis == 1 ? std::vector<int64_t>{groups, 1} : std::vector<int64_t>{1, groups};
    return Packed{fmt::format(R"({{"quant_method": "hqq", "quant_config": {{"weight_quant_params":
                         {{"nbits": {}, "group_size": {}, "axis": {}}}}}}})",
                              bits, group_size, axis),
                  {{"W_q", codes},
                   {"scale", scales(shape)},
                   {"zero", at::full(shape, 4, at::kHalf)},
                   {"nbits", number(bits)},
                   {"group_size", number(group_size)},
                   {"axis", number(axis)},
                   {"shape", shape_of_matrix()},
                   {"packing", text(bits == 3 ? "3bit_32" : "4bit_u8")},
                   {"unpack_view_dtype", text(bits == 3 ? "torch.int32" : "torch.uint8")},
                   {"compute_dtype", text("torch.float16")},
                   {"view_as_float", flag(false)},
                   {"quant_scale", flag(false)},
                   {"quant_zero", flag(false)},
                   {"offload_meta", flag(false)},
                   {"encoded_state_dict", flag(true)},
                   {"stores_quant_config", flag(true)},
                   {"channel_wise", flag(true)},
                   {"optimize", flag(true)},
                   {"round_zero", flag(bits == 4)}}};
  };
  return {layer(4, 32, 1, bytes({kOut, kIn / 2})), layer(3, 64, 0, words({7, kOut}))};
}

std::string compressed_config(const std::string& format, const std::string& weights) {
  return fmt::format(R"({{"quant_method": "compressed-tensors", "format": "{}", "config_groups":
                         {{"group_0": {{"targets": ["Linear"], "weights": {{{}}},
                                        "input_activations": null}}}},
                         "ignore": ["lm_head"], "quantization_status": "compressed"}})",
                     format, weights);
}

at::Tensor fp8_codes() { return bytes({kOut, kIn}).view(at::kFloat8_e4m3fn); }

std::vector<Packed> compressed_tensors() {
  return {{compressed_config("pack-quantized",
                             R"("num_bits": 4, "type": "int", "symmetric": false,
                                "strategy": "group", "group_size": 32, "actorder": null)"),
           {{"weight_packed", words({kOut, words_for(kIn, 4)})},
            {"weight_scale", scales({kOut, kGroups}, at::kBFloat16)},
            {"weight_shape", shape_of_matrix()},
            {"weight_zero_point", words({words_for(kOut, 4), kGroups})}}},
          {compressed_config("int-quantized",
                             R"("num_bits": 8, "type": "int", "symmetric": true,
                                "strategy": "channel")"),
           {{"weight", bytes({kOut, kIn}).to(at::kChar)},
            {"weight_scale", scales({kOut, 1}, at::kBFloat16)}}},
          {compressed_config("float-quantized",
                             R"("num_bits": 8, "type": "float", "strategy": "channel")"),
           {{"weight", fp8_codes()}, {"weight_scale", scales({kOut, 1}, at::kBFloat16)}}}};
}

std::vector<Packed> fp8() {
  return {
      {R"({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [32, 32],
               "activation_scheme": "dynamic"})",
       {{"weight", fp8_codes()}, {"weight_scale_inv", scales({1, kGroups}, at::kFloat)}}},
      {R"({"quant_method": "mxfp8"})",
       {{"weight", fp8_codes()},
        {"weight_scale", at::full({kOut, kGroups}, 120, at::kByte).view(at::kFloat8_e8m0fnu)}}}};
}

std::vector<Packed> others() {
  return {{R"({"quant_method": "aqlm", "num_codebooks": 2, "nbits_per_codebook": 4,
               "out_group_size": 1, "in_group_size": 8,
               "linear_weights_not_to_quantize": ["lm_head.weight"]})",
           {{"codes", bytes({kOut, kIn / 8, 2}).to(at::kChar)},
            {"codebooks", scales({2, 16, 1, 8})},
            {"scales", scales({kOut, 1, 1, 1})}}},
          {R"({"quant_method": "eetq", "weights": "int8"})",
           {{"weight", bytes({kIn, kOut}).to(at::kChar)}, {"weight_scales", scales({kOut})}}},
          {R"({"quant_method": "torchao", "quant_type":
               {"default": {"_type": "Int8WeightOnlyConfig", "_version": 2}}})",
           {{"_weight_qdata", bytes({kOut, kIn}).to(at::kChar)},
            {"_weight_scale", scales({kOut, 1}, at::kFloat)},
            {"_weight_zero_point", at::zeros({kOut, 1}, at::kChar)}},
           {{std::string(kModule) + ".weight",
             R"({"_type": "Int8Tensor", "_data": {"block_size": [1, 64]}})"}}},
          {R"({"quant_method": "bitsandbytes", "load_in_8bit": true, "llm_int8_threshold": 6.0})",
           {{"weight", bytes({kOut, kIn}).to(at::kChar)}, {"SCB", at::ones({kOut})}}}};
}

// ---- a directory around it

NamedTensors unpacked() {
  const std::string layer = "model.layers.0.";
  const auto matrix = [](int64_t out, int64_t in) {
    return at::full({out, in}, 0.01, at::kBFloat16);
  };
  const at::Tensor norm = at::ones({kIn}, at::kBFloat16);
  return {{"model.embed_tokens.weight", matrix(8, kIn)},
          {layer + "self_attn.k_proj.weight", matrix(kOut / 2, kIn)},
          {layer + "self_attn.v_proj.weight", matrix(kOut / 2, kIn)},
          {layer + "self_attn.o_proj.weight", matrix(kIn, kOut)},
          {layer + "mlp.gate_proj.weight", matrix(8, kIn)},
          {layer + "mlp.up_proj.weight", matrix(8, kIn)},
          {layer + "mlp.down_proj.weight", matrix(kIn, 8)},
          {layer + "input_layernorm.weight", norm},
          {layer + "post_attention_layernorm.weight", norm},
          {"model.norm.weight", norm}};
}

std::string config_with(const std::string& quantization) {
  return R"({"model_type": "llama", "vocab_size": 8, "hidden_size": 64, "intermediate_size": 8,
 "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
 "tie_word_embeddings": true,
 "quantization_config": )" +
         quantization + "}";
}

constexpr const char* kWeights = "model.safetensors";
constexpr const char* kTorchWeights = "qmodel.pt";
constexpr size_t kLengthBytes = 8;

void load_as_stored(const std::string& directory) {
  quant::QuantizationOptions as_stored;
  as_stored.method = "as_stored";
  const auto source = model::open_weights(directory);
  model::load_model(*source, {}, as_stored, at::kCPU, at::kFloat);
}

// An input is config.json and either the header of model.safetensors and its data, or the pickle of
// qmodel.pt and its two storages: of a whole file a changed length would say that the header or the
// archive is damaged, and nothing behind it would be reached.
void write_directory(const test::TempDir& dir, Parts parts) {
  dir.write("config.json", parts["config.json"]);
  for (const char* before : {kWeights, kTorchWeights}) std::filesystem::remove(dir / before);
  if (parts.contains("pickle")) {
    dir.write(kTorchWeights, test::torch_file(parts["pickle"], {parts["bytes"], parts["numbers"]}));
    return;
  }
  const std::string& header = parts["header"];
  std::string length(kLengthBytes, '\0');
  const uint64_t size = header.size();
  std::memcpy(length.data(), &size, kLengthBytes);
  dir.write(kWeights, length + header + parts["weights"]);
}

std::string taken_seed(const Parts& parts) {
  const test::TempDir dir;
  write_directory(dir, parts);
  load_as_stored(dir.path());
  return join_parts(parts);
}

std::string safetensors_seed(const std::string& config, const NamedTensors& tensors,
                             const std::map<std::string, std::string>& metadata = {}) {
  const test::TempDir dir;
  quant::write_tensors(dir / kWeights, tensors, metadata);
  const std::string file = test::read_file(dir / kWeights);
  uint64_t length = 0;
  std::memcpy(&length, file.data(), kLengthBytes);
  return taken_seed({{"config.json", config},
                     {"header", file.substr(kLengthBytes, length)},
                     {"weights", file.substr(kLengthBytes + length)}});
}

std::string seed_of(const Packed& packed) {
  NamedTensors tensors = unpacked();
  for (const auto& [part, tensor] : packed.parts)
    tensors.emplace_back(fmt::format("{}.{}", kModule, part), tensor);
  return safetensors_seed(config_with(packed.config), tensors, packed.metadata);
}

// A storage as torch.save writes it, and tensors one behind the other in it.
struct Storage {
  std::string type, key;
  int64_t elements;  // of all tensors
  int64_t used = 0;
  std::string bytes = {};

  // The pickle of the tensor.
  std::string add(const at::Tensor& tensor) {
    bytes.append(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes());
    const int64_t begin = used;
    used += tensor.numel();
    return test::pickle::tensor(test::pickle::storage(type, key, elements), begin,
                                tensor.sizes().vec(), tensor.strides().vec());
  }
};

// hqq's own file: dicts of layers, with numbers, names of types and parameters beside tensors.
std::string torch_seed() {
  namespace pk = test::pickle;
  constexpr int64_t kHqqGroups = kOut * kIn / kGroup;
  const NamedTensors others = unpacked();
  int64_t numbers_in_all = 2 * kHqqGroups;
  for (const auto& [name, tensor] : others) numbers_in_all += tensor.numel();
  Storage codes{"ByteStorage", "0", kOut * kIn / 2};
  Storage numbers{"BFloat16Storage", "1", numbers_in_all};
  const std::string packed =
      pk::call(pk::global("torch._utils", "_rebuild_parameter"),
               {codes.add(bytes({kOut, kIn / 2})), pk::kFalse, pk::ordered_dict()});
  const std::string layer =
      pk::dict({{"W_q", packed},
                {"nbits", pk::integer(4)},
                {"group_size", pk::integer(kGroup)},
                {"shape", pk::call(pk::global("torch", "Size"), {pk::integers({kOut, kIn})})},
                {"scale", numbers.add(scales({kHqqGroups, 1}, at::kBFloat16))},
                {"zero", numbers.add(at::full({kHqqGroups, 1}, 4, at::kBFloat16))},
                {"axis", pk::integer(1)},
                {"packing", pk::text("4bit_u8")},
                {"unpack_view_dtype", pk::global("torch", "uint8")},
                {"view_as_float", pk::kFalse},
                {"quant_scale", pk::kFalse},
                {"quant_zero", pk::kFalse},
                {"compute_dtype", pk::global("torch", "float16")}});
  pk::Items modules = {{kModule, layer}};
  for (const auto& [name, tensor] : others) modules.emplace_back(name, numbers.add(tensor));
  return taken_seed({{"config.json", config_with("null")},
                     {"pickle", pk::whole(pk::dict(modules))},
                     {"bytes", codes.bytes},
                     {"numbers", numbers.bytes}});
}

// Two experts of 32 by 32, a block a row.
std::string mxfp4_seed() {
  constexpr int64_t kExperts = 2, kSize = 32;
  const auto plain = [](at::IntArrayRef shape) { return at::full(shape, 0.01, at::kBFloat16); };
  const std::string layer = "model.layers.0.", attention = layer + "self_attn.",
                    experts = layer + "mlp.experts.";
  NamedTensors tensors = {{"model.embed_tokens.weight", plain({8, kSize})},
                          {"lm_head.weight", plain({8, kSize})},
                          {"model.norm.weight", plain({kSize})},
                          {layer + "input_layernorm.weight", plain({kSize})},
                          {layer + "post_attention_layernorm.weight", plain({kSize})},
                          {layer + "mlp.router.weight", plain({kExperts, kSize})},
                          {layer + "mlp.router.bias", plain({kExperts})},
                          {attention + "sinks", plain({2})}};
  for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
    tensors.emplace_back(attention + name + ".weight", plain({kSize, kSize}));
    tensors.emplace_back(attention + name + ".bias", plain({kSize}));
  }
  for (const auto& [name, rows] :
       {std::pair{"gate_up_proj", 2 * kSize}, std::pair{"down_proj", kSize}}) {
    tensors.emplace_back(experts + name + "_blocks", bytes({kExperts, rows, 1, 16}));
    tensors.emplace_back(experts + name + "_scales", at::full({kExperts, rows, 1}, 120, at::kByte));
    tensors.emplace_back(experts + name + "_bias", plain({kExperts, rows}));
  }
  return safetensors_seed(
      R"({"model_type": "gpt_oss", "vocab_size": 8, "hidden_size": 32, "intermediate_size": 32,
 "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
 "num_local_experts": 2, "num_experts_per_tok": 1, "tie_word_embeddings": false,
 "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}})",
      tensors);
}

void read_prequantized(std::string_view input) {
  static const test::TempDir dir(memory_file_system());
  write_directory(dir, split_parts(input));
  taken_or_refused([&] { model::read_model_header(dir.path()); });
  taken_or_refused([&] { load_as_stored(dir.path()); });
}

std::vector<std::string> prequantized_seeds() {
  at::manual_seed(1);
  std::vector<std::string> seeds = {torch_seed(), mxfp4_seed()};
  for (const auto& packed : {gptq(), awq(), hqq(), compressed_tensors(), fp8(), others()})
    for (const Packed& layer : packed) seeds.push_back(seed_of(layer));
  return seeds;
}

}  // namespace

std::vector<Target> prequantized_targets() {
  return {{"prequantized",
           read_prequantized,
           prequantized_seeds,
           {"\"quant_method\"",
            "\"bits\"",
            "\"group_size\"",
            "\"sym\"",
            "\"desc_act\"",
            "\"checkpoint_format\"",
            "\"gptq_v2\"",
            "\"dynamic\"",
            "\"version\"",
            "\"gemv\"",
            "\"nbits\"",
            "\"axis\"",
            "\"strategy\"",
            "\"block_structure\"",
            "\"actorder\"",
            "\"num_codebooks\"",
            "\"nbits_per_codebook\"",
            "\"weight_block_size\"",
            "\"scale_fmt\"",
            "\"expert_dtype\"",
            "\"modules_to_not_convert\"",
            ".g_idx",
            ".qzeros",
            ".weight_zero_point",
            ".weight_scale",
            ".W_q",
            ".meta",
            ".codebooks",
            "\"I32\"",
            "\"I8\"",
            "\"F16\"",
            "\"F8_E4M3\"",
            "\"F8_E8M0\"",
            "\"U8\"",
            "null",
            "true",
            "-1",
            "0",
            "[0]",
            "[]"}}};
}

}  // namespace qlora::fuzz
