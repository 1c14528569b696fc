// What an adapter's file comes to on a base model. PEFT is the judge: of target_modules and
// target_parameters one must match, the others, and modules_to_save, may name modules of other
// models; embedding and head that it saved by itself
// (after the vocabulary was resized) take the place of the base's; initialisations that changed the
// base are known by their names.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "lora/embedding_names.h"
#include "lora/lora_options.h"

namespace qlora::lora {

// Of a base model, what an adapter is compared with.
struct BaseView {
  std::string place;                // for messages
  std::vector<std::string> linear;  // paths of the linear layers, the head among them
  std::vector<std::string> others;  // paths of the norms and of the embedding
  int64_t vocab_size = 0;
  bool tied = false;
  EmbeddingNames names = {};
  bool has_conv1d = false;  // linear layers that are LoraLinear::stored_by_inputs
  // The embedding or head, by its module path, as [vocab, hidden] on the CPU in a dtype that holds
  // its numbers as they are. Empty where the weights are not at hand.
  std::function<at::Tensor(const std::string& module)> weight;
};

struct FittedAdapter {
  LoraOptions options;  // of the slots that its tensors fill
  // Tensors of the file that are the base's, there twice, or of modules that the base has not.
  std::set<std::string> passed_over;
};

// The options of adapter_config.json without the targets and modules_to_save that match no module
// (a warning names them; tensors of the latter are passed over). Embedding and head that the file
// holds without naming them in modules_to_save are trained whole if they differ from the base's,
// else passed over, as is what PEFT writes of its wrappers of embeddings. On a base whose embedding
// and head are one matrix, and that the adapter has no copies of, one tensor of the file stands for
// both. FormatError if no target matches, the file's vocabulary is another than the base's, its
// tokens were trained over another embedding, or init_lora_weights names an initialisation that
// changed the base in a way that cannot be repeated (corda, lora_ga, loftq); a warning where it can
// be repeated nearly (pissa_niter_N).
FittedAdapter fit_adapter(const std::string& directory, const BaseView& base);

// Bytes beside the base and the adapters that it fills while the directory's file is read, by the
// file's header: a copy of the tensors that are used, or, before it, the base's embedding of
// `embedding_bytes` and its pages of a file, with which fit_adapter() compares embedding and head.
// `fitted` are the options that it gave. FormatError, ConfigError, IoError if directory or file
// cannot be read.
int64_t reading_bytes(const std::string& directory, const LoraOptions& fitted,
                      const EmbeddingNames& names, int64_t embedding_bytes);

// Leaves out the targets, modules and parameters, that match none of the modules, with a warning;
// see fit_adapter().
void drop_unmatched_targets(const std::string& directory, const BaseView& base,
                            LoraOptions& options);

// "pissa" or "olora" if PEFT takes the product that the adapter started from off the base's weights
// whenever it loads it; empty if the base stays, or the adapter's own record says which base it is.
std::string initial_product_of(const std::string& directory);

}  // namespace qlora::lora
