// The tensors of one packed layer in a file, taken one by one: each must be there, of its type and
// shape, and none may be left over. Below the class, what readers ask of a single tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "io/json.h"
#include "io/safetensors.h"
#include "quant/quantization_options.h"
#include "quant/weight_shape.h"

namespace qlora::quant {

class StoredParts {
 public:
  // The tensors whose names are `module`, a dot and the name of the part. Those that are taken are
  // added to `read`. `format` is for messages. Borrows `file` and `read`.
  StoredParts(const io::TensorFile& file, std::string module, std::string format,
              std::set<std::string>& read);

  const std::string& module() const { return module_; }
  // The file that holds the layer's first tensor.
  const std::string& place() const { return place_; }

  // nullptr if there is none.
  const io::TensorView* find(const std::string& part) const;
  // Whether the part is there with this shape.
  bool has(const std::string& part, const std::vector<int64_t>& shape) const;
  // The size of a dimension of a part that must have two; 0 if the part is absent or has not.
  int64_t size(const std::string& part, size_t dimension) const;

  // The part as it lies in the file; FormatError naming the layer if it is not there.
  const io::TensorView& take(const std::string& part);
  // nullptr if there is none.
  const io::TensorView* take_if_there(const std::string& part);
  // A copy of the part. FormatError naming file and tensor unless it is there, of this type and
  // shape.
  at::Tensor take(const std::string& part, io::DType dtype, const std::vector<int64_t>& shape);
  // Of float16, bfloat16 or float32, all finite.
  at::Tensor take_scales(const std::string& part, const std::vector<int64_t>& shape);
  // Parts that change nothing in training, where they are there.
  void ignore(std::initializer_list<const char*> parts);
  // FormatError if the layer has a tensor that nobody took, biases aside.
  void require_all_taken() const;
  // FormatError "FILE: tensor MODULE.PART " and the sentence.
  [[noreturn]] void reject(const std::string& part, const std::string& sentence) const;

 private:
  const io::TensorFile& file_;
  std::string module_, format_, place_ = "the model's file";
  std::set<std::string>& read_;
};

// ConfigError unless the options take weights as they are stored: `stored` is the format of what
// `place` holds.
void require_as_stored(const QuantizationOptions& options, const std::string& stored,
                       const std::string& place);

// Says that what is told at `place`, that activations are quantized as well, changes nothing here.
void warn_of_quantized_activations(const io::JsonNode& place);

// Says, once for each `config` and `topic`, that `config` has `said` for a module whose tensors
// have `found`, and that the tensors are used.
void warn_of_tensors(const std::string& config, const char* topic, const std::string& module,
                     const std::string& said, const std::string& found);

// The first of the keys that is set. Warns if a later one has another value, letters' case aside.
std::optional<io::JsonNode> first_of(const io::JsonNode& config,
                                     std::initializer_list<const char*> keys);

// Whether a tool divides `count` into pieces of `size`: into one, into whole ones, or of a power of
// two. Of other sizes that give as many pieces nothing tells whether they are right.
bool is_likely_size(int64_t count, int64_t size);

// FormatError if the layer is one of stacked experts, which none of these tools packs.
void require_matrix(const WeightShape& shape, const StoredParts& parts);

// FormatError "FILE: tensor NAME must REQUIREMENT, found DTYPE [SHAPE]".
[[noreturn]] void reject_tensor(const io::TensorView& view, const std::string& requirement);
// FormatError unless the tensor is of this shape, and of one of these types.
void require_tensor(const io::TensorView& view, std::initializer_list<io::DType> dtypes,
                    const std::vector<int64_t>& shape);

// A copy in memory; the file's pages are dropped.
at::Tensor take_tensor(const io::TensorView& view);
// FormatError naming the first place at which `bad`, a boolean tensor of the view's shape, is true:
// "FILE: tensor NAME holds WHAT at [3, 7]; the file is damaged".
void refuse_values(const io::TensorView& view, const at::Tensor& bad, const std::string& what);
// A copy of float32, bfloat16 or float16, of which no value is NaN or infinite.
at::Tensor take_finite(const io::TensorView& view);

}  // namespace qlora::quant
