// safetensors, torch.save, GGUF, JSON.
#include <variant>

#include "io/gguf.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/torch_file/pickle.h"
#include "io/torch_file/torch_file.h"
#include "io/torch_file/torch_globals.h"
#include "tests/fuzz/target.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"
#include "tests/support/torch_writer.h"

namespace qlora::fuzz {
namespace {

// Looks at the first and last byte of every tensor.
unsigned touch(const std::vector<io::TensorView>& tensors) {
  unsigned sum = 0;
  for (const io::TensorView& tensor : tensors)
    if (!tensor.bytes.empty())
      sum += std::to_integer<unsigned>(tensor.bytes.front()) +
             std::to_integer<unsigned>(tensor.bytes.back());
  return sum;
}

void read_safetensors_bytes(std::string_view bytes) {
  const MemoryFile file(bytes);
  taken_or_refused([&] {
    const io::TensorFile tensors = io::read_safetensors(file.path());
    touch(tensors.tensors);
    for (const io::TensorView& tensor : tensors.tensors) tensors.find(tensor.name);
  });
}

std::vector<std::string> safetensors_seeds() {
  const test::TempDir dir;
  const std::vector<io::TensorHeader> headers = {
      {"a", io::DType::kF32, {2, 3}}, {"b.c", io::DType::kBF16, {0}}, {"d", io::DType::kU8, {}}};
  io::SafetensorsWriter writer(dir / "m.safetensors", headers, {{"format", "pt"}});
  for (const io::TensorHeader& header : headers)
    writer.write(header.name, std::vector<std::byte>(io::bytes_of(header)));
  writer.finish();
  return {test::read_file(dir / "m.safetensors")};
}

void read_torch_bytes(std::string_view bytes) {
  const MemoryFile file(bytes);
  taken_or_refused([&] { touch(io::read_torch_file(file.path()).tensors); });
}

std::string state_dict_pickle() {
  namespace pk = test::pickle;
  return pk::whole(pk::dict(
      {{"a.weight", pk::tensor(pk::storage("HalfStorage", "0", 6), 0, {3, 2}, {1, 3})},
       {"b", pk::call(pk::global("torch._utils", "_rebuild_parameter"),
                      {pk::tensor(pk::storage("ByteStorage", "1", 2), 1, {1}, {1}), pk::kTrue,
                       pk::ordered_dict()})},
       {"layer", pk::dict({{"nbits", pk::integer(4)},
                           {"shape", pk::call(pk::global("torch", "Size"), {pk::integers({3, 4})})},
                           {"dtype", pk::global("torch", "float16")},
                           {"list", pk::list({pk::text("x"), pk::kNone})}})}},
      pk::ordered_dict()));
}

std::vector<std::string> torch_seeds() {
  const std::string pickle = state_dict_pickle();
  const std::vector<std::string> storages = {"abcdefghijkl", "xy"};
  return {test::torch_file(pickle, storages), test::zip(test::torch_entries(pickle, storages))};
}

// Without an archive around it, whose sizes a changed pickle would contradict.
void read_pickle_bytes(std::string_view bytes) {
  taken_or_refused([&] { io::read_pickle(bytes, "data.pkl", io::is_torch_global); });
}

std::vector<std::string> pickle_seeds() {
  const std::string key = "\x8c\x01k\x94";
  return {state_dict_pickle(),
          "\x80\x04\x95" + test::little_endian(15, 8) + "}" + key + "K\x01s" + key + "Ns."};
}

void read_gguf_bytes(std::string_view bytes) {
  const MemoryFile file(bytes);
  taken_or_refused([&] { touch(io::GgufFile(file.path()).tensors()); });
  // Every key as every type.
  taken_or_refused([&] {
    const io::GgufFile gguf(file.path());
    for (const auto& [key, ignored] : gguf.metadata()) {
      taken_or_refused([&] { gguf.text(key); });
      taken_or_refused([&] { gguf.integer(key, 0, 100); });
      taken_or_refused([&] { gguf.number(key); });
      taken_or_refused([&] { gguf.boolean(key); });
      taken_or_refused([&] { gguf.texts(key); });
      taken_or_refused([&] { gguf.integers(key); });
      taken_or_refused([&] { gguf.numbers(key); });
      taken_or_refused([&] { gguf.bytes(key); });
    }
  });
}

std::vector<std::string> gguf_seeds() {
  const test::TempDir dir;
  const std::vector<std::pair<std::string, io::GgufValue>> metadata = {
      {"general.architecture", std::string("llama")},
      {"llama.block_count", uint64_t{2}},
      {"a.negative", int64_t{-3}},
      {"a.float", 1e-5F},
      {"a.double", 2.5},
      {"a.bool", true},
      {"a.integers", std::vector<int64_t>{1, -2}},
      {"a.floats", std::vector<float>{0.5F}},
      {"a.texts", std::vector<std::string>{"x", ""}},
      {"a.bools", std::vector<uint8_t>{0, 1}}};
  std::vector<io::TensorView> headers(2);
  headers[0].name = "blk.0.attn_q.weight";
  headers[0].dtype = io::DType::kQ8_0;
  headers[0].shape = {1, 32};
  headers[1].name = "output.weight";
  headers[1].shape = {3, 2};
  io::GgufWriter writer(dir / "m.gguf", metadata, headers);
  writer.write(headers[0].name, std::vector<std::byte>(34));
  writer.write(headers[1].name, std::vector<std::byte>(24));
  writer.finish();
  return {test::read_file(dir / "m.gguf")};
}

void read_json_bytes(std::string_view bytes) {
  taken_or_refused([&] {
    const nlohmann::json document = io::parse_json(bytes, "file.json");
    const io::JsonNode node(document, "file.json");
    taken_or_refused([&] { node.at("key").as_string(); });
    taken_or_refused([&] { node.at("key").as_bool(); });
    taken_or_refused([&] { node.at("key").as_number(); });
    taken_or_refused([&] { node.at("key").as_integer(-5, 5); });
    taken_or_refused([&] {
      for (const io::JsonNode& element : node.at("key").elements()) element.as_string();
    });
  });
}

std::vector<std::string> json_seeds() {
  return {R"({"key": "text \u00e9 \ud83d\ude00", "other": [1, -2.5e3, true, null, {"a": {}}]})",
          R"({"key": 3})",
          R"({"key": 1e400})",
          R"({"key": 18446744073709551616})",
          R"({"key": ["a", "b"]})",
          "[[[[]]]]"};
}

}  // namespace

std::vector<Target> io_targets() {
  return {{"safetensors",
           read_safetensors_bytes,
           safetensors_seeds,
           {"__metadata__", "\"dtype\"", "\"shape\"", "\"data_offsets\"", "F32", "BF16", "I64",
            "F8_E4M3", "null"}},
          {"torch_file",
           read_torch_bytes,
           torch_seeds,
           {"PK\x01\x02", "PK\x05\x06", "PK\x06\x06", "archive/data/0", "torch\nFloatStorage\n",
            "(K\x02t", "\x8a\x08"}},
          {"pickle",
           read_pickle_bytes,
           pickle_seeds,
           {"collections\nOrderedDict\n", "torch\nSize\n", "}(u", "](e", ")R", "\x86", "\x94",
            "h\x01", "\x93", "\x8c\x01", "\x8d", "cos\nsystem\n"}},
          {"gguf",
           read_gguf_bytes,
           gguf_seeds,
           {"GGUF", "general.alignment", "split.count", "llama.block_count"}},
          {"json",
           read_json_bytes,
           json_seeds,
           {"\"key\"", "true", "false", "null", "\\u", "1e999", "-0"}}};
}

}  // namespace qlora::fuzz
