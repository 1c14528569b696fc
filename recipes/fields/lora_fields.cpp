// The keys of a recipe's lora section.
#include <fmt/format.h>

#include "recipes/fields/field_makers.h"

namespace qlora::recipes {
namespace {

const std::vector<Field<lora::LoftqOptions>>& loftq_fields() {
  using Loftq = lora::LoftqOptions;
  const auto in = [](About about, auto Loftq::*member) {
    Field<Loftq> field{about.key, about.type, about.meaning};
    field.read = [member](const Node& node, const std::string& key, ProblemList& problems,
                          Loftq& loftq) { decode(node, key, problems, loftq.*member); };
    field.write = [member](const Loftq& loftq) { return encode(loftq.*member); };
    return field;
  };
  static const std::vector<Field<Loftq>> fields = {
      in({"iterations", "integer", "Alternating steps."}, &Loftq::iterations),
      in({"svd", "randomized | exact", "How the residual is decomposed."}, &Loftq::svd),
      in({"original", "path", "The 16-bit model."}, &Loftq::original)};
  return fields;
}

RecipeField loftq() {
  RecipeField field{
      "loftq", "map",
      "For `init: loftq`. `iterations`: how many alternating steps are made, of which the best is "
      "kept. `svd`: how the residual, or with `init: pissa` the weight, is decomposed, randomized "
      "or exact. `original`: the 16-bit model, which is needed if `model.path` is stored "
      "quantized."};
  field.read = [](const Node& node, const std::string& key, ProblemList& problems, Recipe& recipe) {
    if (node.is_map()) return read_fields(node, key, loftq_fields(), problems, recipe.lora.loftq);
    problems.covered(key);
    problems.add(node.place, fmt::format("{} must be a map, got {}; write {{iterations: 5}}", key,
                                         node.describe()));
  };
  field.write = [](const Recipe& recipe) {
    std::vector<Node::Entry> entries;
    for (const auto& part : loftq_fields())
      entries.push_back(Node::entry(part.key, part.write(recipe.lora.loftq)));
    return Node::map(std::move(entries));
  };
  return field;
}

constexpr const char* kEmbedTokens = "embed_tokens";  // what a bare list of tokens means

// A list of ids, or a map from module to ids.
RecipeField trained_tokens() {
  RecipeField field{"trainable_token_indices", "list of integers, or map",
                    "Ids of tokens that are trained alone, without the rest of the input embedding "
                    "(and of lm_head, where the base has one matrix for both). A map lists them by "
                    "module: `{embed_tokens: [5, 6], lm_head: [5]}`."};
  field.read = [](const Node& node, const std::string& key, ProblemList& problems, Recipe& recipe) {
    auto& tokens = recipe.lora.trainable_token_indices;
    tokens.clear();
    if (!node.is_map()) {
      std::vector<int64_t> ids;
      decode(node, key, problems, ids);
      if (!ids.empty()) tokens[kEmbedTokens] = ids;
      return;
    }
    for (const Node::Entry& entry : node.entries)
      decode(entry.value, key + "." + entry.key, problems, tokens[entry.key]);
  };
  field.write = [](const Recipe& recipe) {
    const auto& tokens = recipe.lora.trainable_token_indices;
    if (tokens.empty()) return encode(std::vector<int64_t>{});
    if (tokens.size() == 1 && tokens.contains(kEmbedTokens)) return encode(tokens.begin()->second);
    std::vector<Node::Entry> entries;
    for (const auto& [module, ids] : tokens) entries.push_back(Node::entry(module, encode(ids)));
    return Node::map(std::move(entries));
  };
  return field;
}

}  // namespace

Section lora_section() {
  using Options = lora::LoraOptions;
  const Members<Options> in{&Recipe::lora};
  return section(
      "lora", "The adapters, which are what is trained.", &Recipe::lora,
      {in({"rank", "integer", "Inner dimension of the adapters, 1 to 4096."}, &Options::rank),
       in({"alpha", "number", "Scale: an adapter's output is multiplied by alpha / rank."},
          &Options::alpha),
       in({"dropout", "number",
           "Share of an adapter's input that is dropped in training, in [0, 1)."},
          &Options::dropout),
       in({"targets", "list of texts",
           "Which linear layers get an adapter: `all-linear`, module names (`q_proj`), regular "
           "expressions on the whole module path, or `peft-default`, which means the layers that "
           "PEFT adapts when it is given no `target_modules` (it has defaults for some families). "
           "A pattern without a match is an error."},
          &Options::targets),
       in({"target_parameters", "list of texts",
           "Experts and routers that get an adapter, named by the end of their path: "
           "`gate_up_proj`, `down_proj`, `gate.weight`. Patterns of `targets` do not match them; "
           "for Mixtral, Qwen3-MoE and OLMoE `all-linear` includes them, as in PEFT."},
          &Options::target_parameters),
       in({"exclude_modules", "list of texts",
           "Linear layers that get no adapter, written like `targets`."},
          &Options::exclude_modules),
       in({"layers_to_transform", "list of integers",
           "Numbers of the decoder layers that get adapters, counted from 0. Empty: all layers "
           "do."},
          &Options::layers_to_transform),
       in({"use_dora", "true | false",
           "DoRA: the magnitude of each output's weights is trained as a number of its own, and "
           "the adapter changes their direction only."},
          &Options::use_dora),
       in({"bias", "none | all | lora_only",
           "Which biases are trained, where the model has any. all: every bias. lora_only: those "
           "of layers that have an adapter."},
          &Options::bias),
       in({"modules_to_save", "list of texts",
           "Modules that are trained whole beside the adapters, named by the end of their path: "
           "`embed_tokens`, `lm_head`, `norm` (every norm), `model.norm` (the last one), "
           "`input_layernorm`, or linear modules, which then get no adapter."},
          &Options::modules_to_save),
       trained_tokens(),
       in({"trainable_tokens", "list of texts",
           "Tokens of the input embedding that are trained alone, named by their spelling instead "
           "of their ids: `[\"<|im_start|>\"]`."},
          &Options::trainable_tokens),
       in({"ensure_weight_tying", "boolean",
           "Matters where the base has one matrix for both embed_tokens and lm_head and one of the "
           "two is trained. true: they remain one matrix, so that both are trained. false: they "
           "become two, and the other one stays as it was."},
          &Options::ensure_weight_tying),
       in({"dtype", "float32 | bfloat16",
           "Type of the trained numbers: they are rounded to it after each step, and saved in it."},
          &Options::dtype),
       in({"rank_pattern", "map",
           "Rank of modules whose path ends in a match: `{down_proj: 32, layers.0.mlp.up_proj: "
           "8}`. "
           "Keys are regular expressions; of several that match, the first as written decides."},
          &Options::rank_pattern) |
           Compared{[](const Recipe& a, const Recipe& b) {
             return decide_alike(a.lora.rank_pattern, b.lora.rank_pattern,
                                 lora::are_disjoint_names);
           }},
       in({"alpha_pattern", "map",
           "Alpha of modules whose path ends in a match, written like `rank_pattern`."},
          &Options::alpha_pattern) |
           Compared{[](const Recipe& a, const Recipe& b) {
             return decide_alike(a.lora.alpha_pattern, b.lora.alpha_pattern,
                                 lora::are_disjoint_names);
           }},
       in({"init", "default | gaussian | orthogonal | loftq | pissa | olora",
           "How the adapter's matrices A and B start. default: A is random (Kaiming-uniform) and B "
           "is zero. gaussian: A is drawn from a normal distribution and B is zero. orthogonal: "
           "both are random and orthogonal to each other, so that their product is zero. loftq: "
           "A and B approximate what quantizing the weight lost; for a weight that is not "
           "quantized "
           "they start as by default. pissa and olora: A and B take "
           "over the weight's largest components, which are subtracted from the base. loftq, pissa "
           "and olora change the base, which is then written to `base` in the run directory."},
          &Options::init),
       loftq(),
       in({"use_rslora", "boolean",
           "rsLoRA: an adapter's output is multiplied by alpha / sqrt(rank) instead of alpha / "
           "rank."},
          &Options::use_rslora),
       in({"plus_lr_ratio", "number",
           "LoRA+ (Hayou et al. 2024): B learns at this multiple of `optim.lr`, A at `optim.lr`. "
           "16 is their advice."},
          &Options::plus_lr_ratio),
       in({"from_adapter", "path",
           "A PEFT adapter directory to continue from. Rank, alpha, targets and the rest of its "
           "form are then the adapter's, and a key that asks for another is refused; `dropout` is "
           "the recipe's if it is given. Tokenizer and chat template are the adapter's, too, where "
           "its directory holds others than the model's, unless `data.chat_template` is given. "
           "Empty: start anew."},
          &Options::from_adapter)});
}

}  // namespace qlora::recipes
