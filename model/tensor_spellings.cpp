#include "model/tensor_spellings.h"

#include <algorithm>
#include <string_view>

namespace qlora::model {
namespace {

// Vision and audio, and what joins them to the text.
constexpr std::string_view kOtherParts[] = {"vision_tower.", "multi_modal_projector.",
                                            "audio_tower.", "embed_vision.", "embed_audio."};
// Of masks and rotations that older versions of transformers saved.
constexpr std::string_view kBuffers[] = {".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias",
                                         ".attention.bias", ".attention.masked_bias"};
// The text model's, the longest first.
constexpr std::string_view kPrefixes[] = {"model.language_model.model.", "language_model.model.",
                                          "model.language_model.", "model."};

bool is_left_out(std::string_view name) {
  const std::string_view within = name.starts_with("model.") ? name.substr(6) : name;
  return std::ranges::any_of(kOtherParts, [&](auto part) { return within.starts_with(part); }) ||
         std::ranges::any_of(kBuffers, [&](auto end) { return name.ends_with(end); });
}

// "model.language_model." of "model.language_model.embed_tokens".
std::string base_prefix(const Architecture& a) {
  const std::string& embedding = a.embedding.hugging_face;
  return embedding.substr(0, embedding.rfind('.') + 1);
}

// Published without a prefix.
bool is_bare(const std::string& name, const Architecture& a, const std::string& prefix) {
  for (const std::string& module : {a.embedding.hugging_face + ".", a.decoder.prefix.hugging_face,
                                    a.decoder.final_norm.names.hugging_face + "."})
    if (module.starts_with(prefix) && name.starts_with(module.substr(prefix.size()))) return true;
  return false;
}

std::string named(const std::string& name, const Architecture& a, const std::string& prefix) {
  const std::string head = a.head.names.hugging_face + ".";
  const std::string_view bare = name.starts_with("language_model.")
                                    ? std::string_view(name).substr(15)
                                    : std::string_view(name);
  if (bare.starts_with(head)) return std::string(bare);
  for (const std::string_view spelling : kPrefixes)
    if (name.starts_with(spelling)) return prefix + name.substr(spelling.size());
  return is_bare(name, a, prefix) ? prefix + name : name;
}

}  // namespace

void name_as_transformers_does(const Architecture& architecture, io::TensorFile& file) {
  std::erase_if(file.tensors, [](const io::TensorView& t) { return is_left_out(t.name); });
  const std::string prefix = base_prefix(architecture);
  file.rename([&](const std::string& name) { return named(name, architecture, prefix); });
}

}  // namespace qlora::model
