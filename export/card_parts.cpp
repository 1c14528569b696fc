#include "export/card_parts.h"

#include <fmt/format.h>

#include "base/hub_id.h"
#include "export/card_text.h"
#include "io/user_path.h"
#include "lora/weight_init.h"

namespace qlora::exporting {
namespace {

const std::string& model_name(const lora::AdapterBase& base) {
  return base.made_from.empty() ? base.name : base.made_from;
}

}  // namespace

std::string plain_name(const lora::AdapterBase& base) {
  const auto hub = hub_id_of(model_name(base));
  return hub ? hub->id : io::last_part(model_name(base));
}

std::string shown_name(const lora::AdapterBase& base) { return markdown_text(plain_name(base)); }

std::string front_matter(const std::string& library, const lora::AdapterBase& base,
                         bool has_encoder, const std::vector<std::string>& tags) {
  std::string text = fmt::format("---\nlibrary_name: {}\npipeline_tag: {}\n", library,
                                 has_encoder ? "text2text-generation" : "text-generation");
  if (hub_id_of(model_name(base))) text += fmt::format("base_model: {}\n", plain_name(base));
  text += "tags:\n";
  for (const std::string& tag : tags) text += "- " + tag + "\n";
  return text + "---\n";
}

bool is_quantized_by_training(const quant::QuantizationOptions& quantization) {
  return quantization.method != "none" && quantization.method != "as_stored";
}

std::string quantization_sentence(const lora::AdapterBase& base) {
  if (is_quantized_by_training(base.quantization))
    return fmt::format(
        "The base was quantized for the training: {}; what was not quantized was in {}.",
        base.quantization.to_text(), base.dtype);
  if (base.stored_as.empty())
    return fmt::format("The base was not quantized; it was in {}.", base.dtype);
  if (base.quantization.method == "none")
    return fmt::format("The base was decoded from quantized files, {}, and was in {}.",
                       base.stored_as, base.dtype);
  if (!base.made_from.empty())  // which may have been quantized already, or not
    return fmt::format(
        "The base was quantized in the training, {}; what was not quantized was in {}.",
        base.stored_as, base.dtype);
  return fmt::format(
      "The base was quantized already, {}, and trained on as it is; what is not quantized there "
      "was in {}.",
      base.stored_as, base.dtype);
}

bool holds_part_of(const lora::AdapterBase& base) {
  return base.init.empty() || lora::init_changes_base(base.init);
}

std::string changed_base_sentences(const lora::AdapterBase& base) {
  const std::string init = base.init.empty() ? "" : fmt::format(" ({})", markdown_text(base.init));
  if (base.made_from.empty())
    return fmt::format(
        "The adapter started from a part of the base's weights{} and acts as it was trained only "
        "on this base, {}.",
        init, code_span(plain_name(base)));
  return fmt::format(
      "The adapter started from a part of the weights of {0}{1} and acts as it was trained only on "
      "what is left of them: the changed base that its run wrote, the directory {2}. That base "
      "belongs with the adapter; give the two on together. On {0} itself the adapter is wrong.",
      shown_name(base), init, code_span(io::last_part(base.name)));
}

}  // namespace qlora::exporting
