#include <zstd.h>
#include <zstd_errors.h>

#include "base/error.h"
#include "io/decompressor.h"

namespace qlora::io {
namespace {

class Zstandard final : public Decompressor {
 public:
  Zstandard() { check(stream_ != nullptr, "libzstd could not be initialized"); }

  const char* name() const override { return "Zstandard"; }
  bool is_complete() const override { return complete_; }

  Step unpack(std::string_view packed, std::span<char> bytes) override {
    ZSTD_inBuffer in{packed.data(), packed.size(), 0};
    ZSTD_outBuffer out{bytes.data(), bytes.size(), 0};
    const size_t status = ZSTD_decompressStream(stream_.get(), &out, &in);
    complete_ = status == 0;
    Step step{in.pos, out.pos, ""};
    if (ZSTD_isError(status)) step.fault = fault_of(status);
    return step;
  }

 private:
  static std::string fault_of(size_t status) {
    if (ZSTD_getErrorCode(status) == ZSTD_error_frameParameter_windowTooLarge)
      return "it needs a window of more than 128 MiB; unpack it first (unzstd --long=31)";
    return ZSTD_getErrorName(status);
  }

  struct Free {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };
  std::unique_ptr<ZSTD_DStream, Free> stream_{ZSTD_createDStream()};
  bool complete_ = false;
};

}  // namespace

std::unique_ptr<Decompressor> make_zstandard_decompressor() {
  return std::make_unique<Zstandard>();
}

}  // namespace qlora::io
