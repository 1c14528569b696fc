// Small files of torch.save over the letters "abcdef", and what the reader says of them.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "io/torch_file/torch_file.h"
#include "tests/support/temp_dir.h"
#include "tests/support/torch_writer.h"

namespace qlora::test {

// What the reader says of an archive, or "accepted".
inline std::string complaint_of(const std::string& bytes) {
  const TempDir dir;
  try {
    io::read_torch_file(dir.write("m.bin", bytes));
  } catch (const FormatError& error) {
    return error.what();
  }
  return "accepted";
}
// Of a pickle, which may name a storage "0" of the letters.
inline std::string complaint(const std::string& pickle) {
  return complaint_of(torch_file(pickle, {"abcdef"}));
}

// A tensor of these sizes and strides over the bytes "abcdef".
inline std::string view_of_letters(int64_t offset, const std::vector<int64_t>& sizes,
                                   const std::vector<int64_t>& strides) {
  return pickle::tensor(pickle::storage("ByteStorage", "0", 6), offset, sizes, strides);
}
inline std::string letters(int64_t offset, const std::vector<int64_t>& sizes,
                           const std::vector<int64_t>& strides) {
  return pickle::whole(pickle::dict({{"t", view_of_letters(offset, sizes, strides)}}));
}
inline const std::string kLetters = view_of_letters(0, {6}, {1});

}  // namespace qlora::test
