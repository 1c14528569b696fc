// What the formats that become a GroupedWeight share.
#pragma once

#include <memory>
#include <string>

#include "quant/formats/grouped_weight.h"
#include "quant/frozen_size.h"
#include "quant/prequantized/stored_parts.h"

namespace qlora::quant {

// Of rows of `in` columns in groups of `group_size`; not above 0: one group a row.
int64_t num_groups(int64_t in, int64_t group_size);
// The columns of such a group.
int64_t group_columns(int64_t in, int64_t group_size);

// FormatError of `part`, the scales, unless `group_size`, which only `config` says, divides `in` or
// is a power of two (is_likely_size()).
void require_likely_groups(const StoredParts& parts, const std::string& part, int64_t in,
                           int64_t group_size, const std::string& config);

// FormatError of `part`: the tensor `lost` must be beside it, since by the config's `setting`
// columns lie in groups of an order of their own.
[[noreturn]] void reject_lost_order(const StoredParts& parts, const std::string& part,
                                    const char* lost, const std::string& setting);

// int8 codes [rows, in] as they are in memory: 8 bits above a zero of 128.
at::Tensor rows_of_int8(const at::Tensor& codes);

// The layer on `device`; zeros that are all alike become one number. `format`: "gptq".
std::unique_ptr<FrozenWeight> grouped_layer(GroupedTensor weight, const std::string& format,
                                            const std::string& module, at::Device device);

struct GroupedSize {
  int bits = 4;  // of the file
  int64_t group_size = -1;
  int64_t bytes_of_scale = 2;
  bool zeros = false;     // one a group, not one of all
  bool group_of = false;  // columns in groups of an order of their own
};

// What grouped_layer() makes of a layer of this shape.
FrozenSize grouped_size(const WeightShape& shape, const GroupedSize& stored,
                        const std::string& format);

}  // namespace qlora::quant
