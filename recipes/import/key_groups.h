// Rows that several tools' tables have.
#pragma once

#include <string>
#include <vector>

#include "recipes/import/tool.h"

namespace qlora::recipes {

inline constexpr const char* kAlwaysLogged =
    "metrics.jsonl and TensorBoard files are written to output.dir without a key";
inline constexpr const char* kNoSharding =
    "the processes of torchrun, mpirun or srun need no key; to share the model: model.device_map: "
    "ranks";
inline constexpr const char* kAttention = "attention needs no key here";
inline constexpr const char* kFused = "kernels need no key here; the loss is fused in any case";
inline constexpr const char* kMemory =
    "memory needs no key here (train.gradient_checkpointing: auto)";
inline constexpr const char* kRecomputing = "how layers are recomputed needs no key";
inline constexpr const char* kProfiles = "train.profile_steps profiles";
inline constexpr const char* kNoAnswers =
    "an evaluation measures the loss; `qlora generate` and `qlora chat` show answers";
inline constexpr const char* kExactly = "a run repeats itself bit for bit in any case";
inline constexpr const char* kVocabulary =
    "no tokens are added to the vocabulary; lora.trainable_tokens trains those that it has";
inline constexpr const char* kOwnAttention = "attention is that of the model";
inline constexpr const char* kNoPadding =
    "rows lie side by side without padding; data.packing puts several into one sequence";
inline constexpr const char* kEvaluationPacking =
    "an evaluation puts rows side by side, whatever data.packing says of training, and each has a "
    "loss of its own";
inline constexpr const char* kTokenizer = "the tokenizer is that of model.path";
inline constexpr const char* kNoNetwork =
    "nothing is downloaded or uploaded; model.path and data.train name files";
inline constexpr const char* kNoUpload =
    "nothing is uploaded; output.dir/adapter can be, afterwards";
inline constexpr const char* kWholeModel =
    "adapters are trained here, and the model as a whole is not";

// transformers.TrainingArguments.
std::vector<ToolKey> training_argument_keys();
// When transformers' trainer evaluates and saves. With `always` eval_steps counts without a
// strategy, as in Axolotl.
std::vector<ToolKey> evaluation_keys(bool always);
// Programs that draw curves.
std::vector<ToolKey> logger_keys();

// train.objective and its keys in TRL, Axolotl, LLaMA-Factory and torchtune.
std::vector<ToolKey> trl_preference_keys();
std::vector<ToolKey> axolotl_preference_keys();
std::vector<ToolKey> llama_factory_preference_keys();
std::vector<ToolKey> torchtune_preference_keys();

// Whether a file of TRL, Axolotl or LLaMA-Factory is for a training that compares answers.
bool compares_in_trl(const Node& root);
// Whether such a file of TRL has no key that its DPO alone has.
bool may_be_orpo_in_trl(const Node& root);
bool compares_in_axolotl(const Node& root);
bool compares_in_llama_factory(const Node& root);
// The key lora_dropout of the three, which such a training is without.
ToolKey trl_dropout();
ToolKey axolotl_dropout();
ToolKey llama_factory_dropout();
// What the whole file says of such a training: its dropout, and what the file leaves open.
void finish_trl_preferences(const Node& root, Draft& draft);
void finish_axolotl_preferences(const Node& root, Draft& draft);
void finish_llama_factory_preferences(const Node& root, Draft& draft);

// The entries of Axolotl's data sets, and what is trained of their messages.
std::vector<ToolKey> axolotl_dataset_keys();

// Which rows of a data set are taken, and how often.
std::vector<ToolKey> llama_factory_share_keys();
std::vector<ToolKey> axolotl_share_keys();

// The order of rows: in transformers' trainer, in Axolotl, in TRL.
std::vector<ToolKey> row_order_keys();
std::vector<ToolKey> axolotl_row_order_keys();
std::vector<ToolKey> trl_row_order_keys();
void finish_trl_row_order(const Node& root, Draft& draft);

}  // namespace qlora::recipes
