#include <zlib.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "io/decompressor.h"

namespace qlora::io {
namespace {

constexpr int kGzipAlone = 16;  // added to the window's bits: no zlib or raw stream

uInt counted(size_t size) {
  return static_cast<uInt>(std::min<size_t>(size, std::numeric_limits<uInt>::max()));
}

class Gzip final : public Decompressor {
 public:
  Gzip() {
    check(inflateInit2(&stream_, kGzipAlone + MAX_WBITS) == Z_OK, "zlib could not be initialized");
  }
  ~Gzip() override { inflateEnd(&stream_); }
  Gzip(const Gzip&) = delete;
  Gzip& operator=(const Gzip&) = delete;

  const char* name() const override { return "gzip"; }
  bool is_complete() const override { return ended_; }

  Step unpack(std::string_view packed, std::span<char> bytes) override {
    if (ended_) {
      // Archives that were written to tapes and disks in blocks are padded with zeros.
      const size_t zeros = std::min(packed.find_first_not_of('\0'), packed.size());
      if (zeros > 0) return {zeros, 0, ""};
      inflateReset(&stream_);
      ended_ = false;
    }
    const uInt in = counted(packed.size()), out = counted(bytes.size());
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
    stream_.avail_in = in;
    stream_.next_out = reinterpret_cast<Bytef*>(bytes.data());
    stream_.avail_out = out;
    const int status = inflate(&stream_, Z_NO_FLUSH);
    ended_ = status == Z_STREAM_END;
    Step step{in - stream_.avail_in, out - stream_.avail_out, ""};
    if (!ended_ && status != Z_OK && status != Z_BUF_ERROR)
      step.fault = stream_.msg != nullptr ? stream_.msg : zError(status);
    return step;
  }

 private:
  z_stream stream_{};
  bool ended_ = false;
};

}  // namespace

std::unique_ptr<Decompressor> make_gzip_decompressor() { return std::make_unique<Gzip>(); }

}  // namespace qlora::io
