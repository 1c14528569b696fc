#include "model/tensor_spellings.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "model/file_layout.h"

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
  const std::string& embedding = a.embedding.names.hugging_face;
  return embedding.substr(0, embedding.rfind('.') + 1);
}

// Whether it is the name of a module that follows the prefix.
bool is_below(std::string_view name, const Architecture& a, const std::string& prefix) {
  std::vector<std::string> modules = {
      a.embedding.names.hugging_face + ".",           a.decoder.prefix.hugging_face,
      a.decoder.final_norm.names.hugging_face + ".",  a.embedding.norm.names.hugging_face + ".",
      a.embedding.positions.names.hugging_face + ".", a.head_projection.names.hugging_face + ".",
      a.embedding.projection.names.hugging_face + "."};
  return std::ranges::any_of(modules, [&](const std::string& module) {
    return module.starts_with(prefix) && name.starts_with(module.substr(prefix.size()));
  });
}

// Without the prefix, or with its end alone ("decoder." of "model.decoder.").
std::string completed(const std::string& name, const Architecture& a, const std::string& prefix) {
  if (name.starts_with(prefix)) return name;
  for (size_t dot = 0; dot != std::string::npos; dot = prefix.find('.', dot + 1)) {
    const std::string end = prefix.substr(dot == 0 ? 0 : dot + 1);
    if (name.starts_with(end) && is_below(std::string_view(name).substr(end.size()), a, prefix))
      return prefix + name.substr(end.size());
  }
  return name;
}

std::string named(const std::string& name, const Architecture& a, const std::string& prefix) {
  const std::string head = a.head.names.hugging_face + ".";
  const std::string_view bare = name.starts_with("language_model.")
                                    ? std::string_view(name).substr(15)
                                    : std::string_view(name);
  if (bare.starts_with(head)) return std::string(bare);
  for (const std::string_view spelling : kPrefixes)
    if (name.starts_with(spelling) && is_below(name.substr(spelling.size()), a, prefix))
      return prefix + name.substr(spelling.size());
  return completed(name, a, prefix);
}

// A file may hold a tensor under several spellings, but they must agree on what it is.
void require_one_of_each(const io::TensorFile& file, const std::vector<std::string>& own_names) {
  for (size_t i = 0; i < file.tensors.size(); ++i) {
    const io::TensorView& tensor = file.tensors[i];
    const size_t first = file.index.at(tensor.name);
    if (first == i || io::same_bytes(file.tensors[first], tensor)) continue;
    fail<FormatError>(
        "{}: the tensors {} and {} are both the model's {}, and they differ; keep the one that is "
        "meant, and take the other out of the file",
        tensor.file, own_names[first], own_names[i], tensor.name);
  }
}

}  // namespace

void name_as_transformers_does(const Architecture& architecture, io::TensorFile& file) {
  std::erase_if(file.tensors, [](const io::TensorView& t) { return is_left_out(t.name); });
  const std::string prefix = base_prefix(architecture);
  const FileLayout layout(architecture);
  std::vector<std::string> own_names;
  for (const io::TensorView& tensor : file.tensors) own_names.push_back(tensor.name);
  file.rename(
      [&](const std::string& name) { return named(layout.in_model(name), architecture, prefix); });
  require_one_of_each(file, own_names);
}

}  // namespace qlora::model
