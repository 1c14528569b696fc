#include "io/decompressor.h"

namespace qlora::io {

std::unique_ptr<Decompressor> make_decompressor(std::string_view first_bytes) {
  if (first_bytes.starts_with("\x1f\x8b")) return make_gzip_decompressor();
  if (first_bytes.starts_with("\x28\xb5\x2f\xfd")) return make_zstandard_decompressor();
  return nullptr;
}

}  // namespace qlora::io
