#include "io/torch_file/strided_tensor.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace qlora::io {
namespace {

constexpr int64_t kMostElements = int64_t{1} << 56;  // times 8 bytes still fits 64 bits

size_t element_bytes(const StridedTensor& tensor) {
  return static_cast<size_t>(bytes_per_block(tensor.dtype));
}

// A zero among the sizes excuses no overflow of the others: products are formed in any order later.
int64_t elements_of(const std::vector<int64_t>& sizes, const std::string& place) {
  int64_t count = 1;
  for (const int64_t size : sizes) {
    const int64_t factor = std::max<int64_t>(1, size);
    if (count > kMostElements / factor)
      fail<FormatError>("{} must have at most 2^56 elements", place);
    count *= factor;
  }
  return std::ranges::count(sizes, 0) > 0 ? 0 : count;
}

void require_within_storage(const StridedTensor& tensor, const std::string& place) {
  const auto stored = static_cast<int64_t>(tensor.storage.size() / element_bytes(tensor));
  const auto reject = [&] {
    fail<FormatError>("{}: its offset and strides lead out of its storage, which holds {} elements",
                      place, stored);
  };
  if (tensor.offset >= stored) reject();
  int64_t rest = stored - 1 - tensor.offset;
  for (size_t i = 0; i < tensor.sizes.size(); ++i) {
    const int64_t steps = tensor.sizes[i] - 1, stride = tensor.strides[i];
    if (steps > 0 && stride > rest / steps) reject();
    rest -= steps * (steps > 0 ? stride : 0);
  }
}

// Copies the row that begins at `from`, whose elements are `stride` bytes apart.
void copy_row(const std::byte* from, int64_t count, int64_t stride, size_t bytes, std::byte* to) {
  if (stride == static_cast<int64_t>(bytes)) {
    std::memcpy(to, from, static_cast<size_t>(count) * bytes);
    return;
  }
  for (int64_t i = 0; i < count; ++i)
    std::memcpy(to + static_cast<size_t>(i) * bytes, from + i * stride, bytes);
}

}  // namespace

int64_t checked_elements(const StridedTensor& tensor, const std::string& place) {
  const auto negative = [](int64_t number) { return number < 0; };
  if (tensor.sizes.size() != tensor.strides.size() || tensor.sizes.size() > kMostDimensions)
    fail<FormatError>("{} must have as many strides as sizes, at most {}; it has {} and {}", place,
                      kMostDimensions, tensor.strides.size(), tensor.sizes.size());
  if (negative(tensor.offset) || std::ranges::any_of(tensor.sizes, negative) ||
      std::ranges::any_of(tensor.strides, negative))
    fail<FormatError>("{} must have no negative size, stride or offset", place);
  const int64_t elements = elements_of(tensor.sizes, place);
  if (elements > 0) require_within_storage(tensor, place);
  return elements;
}

bool is_contiguous(const StridedTensor& tensor) {
  if (std::ranges::count(tensor.sizes, 0) > 0) return true;
  int64_t stride = 1;
  for (size_t i = tensor.sizes.size(); i-- > 0;) {
    if (tensor.sizes[i] != 1 && tensor.strides[i] != stride) return false;
    stride *= tensor.sizes[i];
  }
  return true;
}

std::span<const std::byte> contiguous_bytes(const StridedTensor& tensor, int64_t elements) {
  if (elements == 0) return {};
  const size_t bytes = element_bytes(tensor);
  return tensor.storage.subspan(static_cast<size_t>(tensor.offset) * bytes,
                                static_cast<size_t>(elements) * bytes);
}

void gather(const StridedTensor& tensor, std::span<std::byte> to) {
  const size_t bytes = element_bytes(tensor);
  std::vector<int64_t> sizes = tensor.sizes, strides;  // strides in bytes
  for (size_t i = 0; i < sizes.size(); ++i)            // one that is never taken may be any number
    strides.push_back(sizes[i] <= 1 ? 0 : tensor.strides[i] * static_cast<int64_t>(bytes));
  int64_t row = 1, within_row = 0;
  if (!sizes.empty()) {
    row = sizes.back(), within_row = strides.back();
    sizes.pop_back();
  }
  const size_t row_bytes = static_cast<size_t>(row) * bytes;
  std::vector<int64_t> index(sizes.size(), 0);  // of the row
  int64_t from = tensor.offset * static_cast<int64_t>(bytes);
  for (; !to.empty(); to = to.subspan(row_bytes)) {
    copy_row(tensor.storage.data() + from, row, within_row, bytes, to.data());
    for (size_t i = sizes.size(); i-- > 0;) {
      from += strides[i];
      if (++index[i] < sizes[i]) break;
      from -= strides[i] * sizes[i];
      index[i] = 0;
    }
  }
}

}  // namespace qlora::io
