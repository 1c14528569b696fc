#include "recipes/fields/fields.h"

#include <fmt/format.h>

#include "optim/optimizer_names.h"
#include "recipes/fields/field_makers.h"

namespace qlora::recipes {
namespace {

RecipeField device_map() {
  RecipeField field{
      "device_map", "auto | cpu | disk | ranks | map",
      "Where the blocks' frozen weights lie. Those that are not on the device that computes "
      "(`train.device`) are fetched for use, two blocks at a time. cpu: they lie in the memory of "
      "a GPU's host. disk: they are read from the model's file if it holds them in the form in "
      "which they are used; otherwise they are written to another file while the model is loaded, "
      "which is gone when the run ends. ranks: the processes that torchrun or another launcher "
      "started for the run share them; each keeps a part of every block and fetches the other "
      "parts for use. A single process keeps all of them on the device. auto: as many stay on the "
      "device as the run has room for. A map says it module by module: `{model.layers: disk, "
      "model.layers.7: cuda:0}`; of several paths that match a block the longest one counts. "
      "Embedding and head move only if the map names them (`model.embed_tokens`, `lm_head`): of "
      "the embedding the rows of a batch are fetched, of the head some of its rows at a time. "
      "Empty: everything stays on the device."};
  field.read = [](const Node& node, const std::string& key, ProblemList& problems, Recipe& recipe) {
    decode_word_or_map(node, key, problems, recipe.model.device_map);
  };
  field.write = [](const Recipe& recipe) { return encode_word_or_map(recipe.model.device_map); };
  return field;
}

Section model_section() {
  using Options = model::ModelOptions;
  const Members<Options> in{&Recipe::model};
  return section(
      "model", "The base model, which stays frozen.", &Recipe::model,
      {in({"path", "path",
           "A Hugging Face directory, a .gguf file, or a hub id (`org/name`, or `org/name@REV` for "
           "a revision) that lies in the local Hugging Face cache. The weights of a directory are "
           "those of model.safetensors or else pytorch_model.bin, in one file or in the shards of "
           "an index; a .bin file is read as data, and nothing in it is run."},
          &Options::path) |
           Required{} | Free{"The model may have moved; one with other weights is refused."},
       in({"name", "text",
           "What the adapter names as its base model. Empty: the hub id if there is one, else the "
           "path."},
          &Options::name) |
           Free{"Adapters saved from then on carry the new name."},
       in({"dtype", "auto | bfloat16 | float16 | float32",
           "Type in which the modules that stay unquantized are held. auto: the type that their "
           "large matrices have in the file; bfloat16 if the file holds nothing but quantized "
           "blocks, and float32 if that is a GGUF file and `train.compute_dtype: float32` asks for "
           "such products."},
          &Options::dtype),
       in({"upcast", "none | norms | all",
           "none and norms: embedding and head stay in `dtype`. all: they are held and computed in "
           "float32, which takes more memory; PEFT's prepare_model_for_kbit_training does the "
           "same. Norms are float32 in any case."},
          &Options::upcast),
       device_map() |
           Free{"The weights lie elsewhere; the numbers stay the same. With "
                "`quantization.fp32_cpu_offload` the same blocks must be on the cpu or on disk."},
       in({"max_memory", "map",
           "With `device_map: auto`: how much memory of each device the run, or each of its ranks, "
           "may take, as `qlora plan` counts it: `{cuda:0: 20GiB, cpu: 30GiB}`. Of a device that "
           "is not named here it may take 90 % of what is free, divided by the number of ranks "
           "that share the device."},
          &Options::max_memory) |
           Free{"The weights lie elsewhere; the numbers stay the same."},
       in({"offload_dir", "path",
           "Directory in which `device_map` may write weights that are to lie on disk. The file "
           "has no name there and is gone when the program ends. Empty: `output.dir`. Commands "
           "that read a run write nothing into it: without a directory here that they may write "
           "to, they take TMPDIR, else /var/tmp."},
          &Options::offload_dir) |
           Free{"The file lies elsewhere."}});
}

Section quantization_section() {
  using Options = quant::QuantizationOptions;
  const Members<Options> in{&Recipe::quantization};
  return section(
      "quantization",
      "How the frozen weights are stored. Without this section they stay as the file has them: 16 "
      "bit, GGUF blocks, MXFP4 experts, or what another tool quantized (bitsandbytes, GPTQ, AWQ, "
      "auto-round, compressed-tensors, FP8, HQQ, AQLM, EETQ, torchao).",
      &Recipe::quantization,
      {in({"method", "nf4 | fp4 | int8 | int8_weight_only | none | as_stored",
           "nf4: 4-bit NormalFloat. fp4: 4-bit floating point, a little less exact. int8: "
           "LLM.int8(), 8-bit products. int8_weight_only: 8-bit weights, 16-bit products. none: 16 "
           "bit. as_stored: as the file has them."},
          &Options::method) |
           ShownDefault{"required; `as_stored` in a recipe without this section"},
       in({"threshold", "number",
           "int8: columns of the input that have a value at least this large are multiplied in 16 "
           "bit. 0: no column is."},
          &Options::threshold),
       in({"fp32_cpu_offload", "boolean",
           "int8: blocks that `model.device_map` has on the cpu or on disk stay unquantized, in "
           "float32, and are multiplied there, on the CPU; their adapters' products stay on "
           "`train.device`. transformers calls it `llm_int8_enable_fp32_cpu_offload`. false: these "
           "blocks are quantized as all others and fetched for use. Needs a map that names them."},
          &Options::fp32_cpu_offload),
       in({"double_quant", "boolean",
           "Quantizes the scales of the 4-bit blocks too, which saves 0.37 bit a weight."},
          &Options::double_quant),
       in({"block_size", "integer",
           "How many weights share one scale: a power of two, 32 to 4096."},
          &Options::block_size),
       in({"skip_modules", "list of texts",
           "Linear layers that stay unquantized: a full path or a part between dots, such as "
           "`down_proj`. `lm_head` stays so in any case, named here or not."},
          &Options::skip_modules)});
}

Section data_section() {
  using Options = data::DataOptions;
  const Members<Options> in{&Recipe::data};
  return section(
      "data", "What is trained on.", &Recipe::data,
      {in({"train", "list of datasets",
           "Rows to train on; the keys of a dataset are listed below."},
          &Options::train) |
           Required{},
       in({"eval", "list of datasets", "Rows to evaluate on, with the same keys."}, &Options::eval),
       in({"mix_by", "rows | tokens",
           "Whether the weights of the datasets are shares of an epoch's rows or of its tokens."},
          &Options::mix_by),
       in({"deduplicate", "boolean",
           "Leaves out training rows that repeat an earlier one of any dataset, token for token."},
          &Options::deduplicate),
       in({"eval_fraction", "number",
           "Instead of `eval`: this share of the training rows is set aside, in [0, 1)."},
          &Options::eval_fraction),
       in({"sequence_length", "integer",
           "Longest row, in tokens; a longer one is an error unless `on_overlength` says what "
           "becomes of it. With `packing` this is also the length up to which a sequence is filled "
           "with rows."},
          &Options::sequence_length),
       in({"packing", "boolean",
           "Puts several rows into one sequence; they do not see each other."},
          &Options::packing),
       in({"shuffle", "boolean",
           "true: the rows come in random order, in a new one each epoch. false: they come in the "
           "order of the file."},
          &Options::shuffle),
       in({"shuffle_block", "integer",
           "Takes this many rows that follow one another, shuffles them among themselves, then "
           "does the same with the next ones, as tools do that read rows as a stream. With it, or "
           "with `shuffle: false`, a run of `train.max_steps` reads and tokenizes one dataset only "
           "as far as these steps need, unless `eval_fraction`, `deduplicate` or a weight asks for "
           "all of it. 0: all rows."},
          &Options::shuffle_block),
       in({"train_on", "assistant | all | last",
           "assistant: only answers are learnt. all: prompts are learnt too. last: only the last "
           "answer of a conversation is learnt; the model reads all that comes before it. With "
           "`train.objective: orpo` this decides which tokens count in the likelihood of the "
           "chosen answers; in TRL all of them do."},
          &Options::train_on),
       in({"on_overlength", "error | drop | truncate_left | truncate_right | split",
           "What happens to a row longer than `sequence_length`: it is an error, it is left out, "
           "its beginning or its end is cut off, or it is split into several. The number of such "
           "rows is reported."},
          &Options::on_overlength),
       in({"chat_template", "path or text",
           "Jinja template: a file (with a `/` or an extension in its name), the name of a "
           "built-in one (`chatml`, `llama-2`, `llama-3`, `alpaca`, `vicuna`, `zephyr`, "
           "`mistral`, `gemma`, `phi-3`), or the text itself. One that ends answers with a special "
           "token of the model teaches it to stop. Empty: the model's, and for rows with tools the "
           "one that it names `tool_use`, if there is one. Left out beside `lora.from_adapter`: "
           "the "
           "adapter's, if it has another one."},
          &Options::chat_template),
       in({"prompt_style", "chat_template | alpaca",
           "How alpaca rows become prompts: through the chat template, or in Alpaca's own words. "
           "Where no other rows are conversations, these words are then the chat template of the "
           "adapter, unless `chat_template` says otherwise."},
          &Options::prompt_style),
       in.word_or_boolean(
           {"cache", "auto | true | false",
            "Keeps the tokenized rows on disk: they take no room in memory, and the next run that "
            "needs the same ones finds them. auto: of datasets whose files have 64 MiB or more; if "
            "they cannot be written there, the rows are kept in memory."},
           &Options::cache) |
           Free{"The rows are the same."},
       in({"cache_dir", "path",
           "Directory in which `cache` keeps the rows. Empty: `qlora/tokenized` in XDG_CACHE_HOME, "
           "or in ~/.cache. Its files may be deleted; they are made again when a run needs them."},
          &Options::cache_dir) |
           Free{"The rows are the same."}});
}

Section optim_section() {
  using Options = optim::OptimizerOptions;
  const Members<Options> in{&Recipe::optim};
  const std::string names = optim::optimizer_families();
  return section(
      "optim", "The optimizer and the learning rate.", &Recipe::optim,
      {in({"name", names.c_str(),
           "Each but lamb can also be written as `NAME_8bit`, `paged_NAME` or `paged_NAME_8bit`. "
           "8bit: the optimizer's state takes a quarter of the memory. paged: the state may be "
           "moved out of the GPU's memory."},
          &Options::name),
       in({"lr", "number", "Peak learning rate."}, &Options::lr),
       in({"betas", "list of numbers",
           "Decay rates of the moving averages, in [0, 1): two for adamw, adam, lion and lamb, "
           "three for ademamix, one for sgd (its momentum) and rmsprop, none for adagrad. Empty: "
           "the "
           "optimizer's usual ones."},
          &Options::betas),
       in({"eps", "number",
           "Adam's epsilon: added to the square root of the second moment, so that no division by "
           "0 occurs. lion and sgd have none."},
          &Options::eps),
       in({"alpha", "number", "Weight of ademamix's slow average."}, &Options::alpha),
       in({"alpha_ramp", "integer",
           "Number of steps over which ademamix's alpha and third beta rise to their values. 0: "
           "they have them from the first step."},
          &Options::alpha_ramp),
       in({"weight_decay", "number",
           "How fast the trained numbers shrink towards 0. As in AdamW it does not pass through "
           "the gradient, except with sgd, rmsprop and adagrad, which add it to the gradient."},
          &Options::weight_decay),
       in({"weight_decay_pattern", "map",
           "The decay of trained tensors whose name matches a key, in place of `weight_decay`: "
           "`{lora_B: 0.1, bias: 0}`. Keys are regular expressions; of several that match, the "
           "first "
           "as written decides."},
          &Options::weight_decay_pattern) |
           Compared{[](const Recipe& a, const Recipe& b) {
             return decide_alike(a.optim.weight_decay_pattern, b.optim.weight_decay_pattern,
                                 [](const std::string&, const std::string&) { return false; });
           }},
       in({"max_grad_norm", "number",
           "Gradients are scaled down to this norm if theirs is larger. 0: never."},
          &Options::max_grad_norm),
       in({"schedule",
           "constant | linear | cosine | cosine_with_restarts | polynomial | inverse_sqrt | wsd | "
           "reduce_on_plateau",
           "Course of the learning rate after warm-up. wsd: the rate stays constant and falls at "
           "the end. reduce_on_plateau: it is lowered when the evaluation loss no longer falls."},
          &Options::schedule),
       in({"plateau_factor", "number",
           "reduce_on_plateau multiplies the rate by this number each time it lowers it."},
          &Options::plateau_factor),
       in({"plateau_patience", "integer",
           "How many evaluations in a row may bring no gain before reduce_on_plateau lowers the "
           "rate. Those made before the warm-up is over do not count."},
          &Options::plateau_patience),
       in({"min_lr_ratio", "number",
           "The rate at which cosine, cosine_with_restarts, polynomial and wsd end, and below "
           "which "
           "reduce_on_plateau does not go, as a share of `lr`, in [0, 1]."},
          &Options::min_lr_ratio),
       in({"num_cycles", "integer", "How many times cosine_with_restarts falls from `lr`."},
          &Options::num_cycles),
       in({"power", "number", "Exponent of the schedule polynomial."}, &Options::power),
       in({"decay_ratio", "number", "Share of all steps in which wsd falls, in [0, 1]."},
          &Options::decay_ratio),
       in({"warmup_ratio", "number",
           "Share of all steps in which the rate rises from 0, in [0, 1]."},
          &Options::warmup_ratio),
       in({"warmup_steps", "integer",
           "Number of steps in which the rate rises from 0. If it is above 0, `warmup_ratio` is "
           "not used."},
          &Options::warmup_steps),
       in({"stochastic_rounding", "boolean",
           "With `lora.dtype: bfloat16`: rounds up or down at random, so that small updates add up "
           "instead of being lost."},
          &Options::stochastic_rounding),
       in({"paged_resident_bytes", "integer",
           "With a paged optimizer: how many bytes of its state stay on the device. 0: half of the "
           "state on a GPU, all of it on the CPU."},
          &Options::paged_resident_bytes) |
           Free{"The state lies elsewhere; the numbers stay the same."}});
}

Section output_section() {
  using Options = trainer::OutputOptions;
  const Members<Options> in{&Recipe::output};
  return section(
      "output", "What is written where.", &Recipe::output,
      {in({"dir", "path", "Directory of the run."}, &Options::dir) | Required{} |
           Free{"The run may have moved."},
       in({"save_base", "boolean",
           "Also writes the quantized base, to `base` in the run directory. Weights that stay in "
           "GGUF blocks or as other tools packed them cannot be written there."},
          &Options::save_base) |
           Free{"It is written as the run starts or continues, where it does not lie there yet."},
       in({"overwrite", "boolean",
           "Replaces a run found in `dir` that is finished or of another recipe. An unfinished run "
           "of the same recipe goes on all the same; `qlora train --overwrite` replaces that, "
           "too."},
          &Options::overwrite) |
           Free{"It matters only when a run starts anew."}});
}

}  // namespace

const std::vector<Section>& sections() {
  static const std::vector<Section> all = {model_section(), quantization_section(), lora_section(),
                                           data_section(),  optim_section(),        train_section(),
                                           output_section()};
  return all;
}

std::vector<std::string> all_keys() {
  std::vector<std::string> keys;
  for (const Section& section : sections()) {
    for (const RecipeField& field : section.fields) keys.push_back(section.name + "." + field.key);
    if (section.name != "data") continue;
    for (const char* list : {"data.train[].", "data.eval[]."})
      for (const auto& field : dataset_fields()) keys.push_back(list + field.key);
  }
  return keys;
}

}  // namespace qlora::recipes
