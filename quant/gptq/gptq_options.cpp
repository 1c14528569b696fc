#include "quant/gptq/gptq_options.h"

#include <algorithm>
#include <iterator>

#include "base/error.h"

namespace qlora::quant {

void GptqOptions::validate() const {
  constexpr int kBits[] = {2, 3, 4, 8};
  if (std::ranges::find(kBits, bits) == std::end(kBits))
    fail<ConfigError>("--bits of gptq must be 2, 3, 4 or 8, found {}", bits);
  if (group_size != -1 && (group_size < 8 || group_size % 8 != 0))
    fail<ConfigError>(
        "--group-size of gptq must be a multiple of 8, or -1 for one scale a row, found {}",
        group_size);
  if (!(damp > 0 && damp < 1))
    fail<ConfigError>("--damp must lie between 0 and 1 (0.05 is usual), found {}", damp);
  if (!(mse == 0 || (mse >= 1 && mse <= 10)))
    fail<ConfigError>("--mse must be 0 (off) or a power from 1 to 10 (2.4 is usual), found {}",
                      mse);
  if (static_groups && group_size == -1)
    throw ConfigError("--static-groups needs groups: a --group-size other than -1");
}

std::string GptqOptions::to_text() const {
  std::string text = group_size > 0 ? fmt::format("gptq, {} bit, group size {}", bits, group_size)
                                    : fmt::format("gptq, {} bit, a scale a row", bits);
  if (!symmetric) text += ", asymmetric";
  if (order == GptqOrder::kActivations) text += ", act order";
  if (static_groups) text += ", static groups";
  if (!true_sequential) text += ", a block at once";
  return text;
}

}  // namespace qlora::quant
