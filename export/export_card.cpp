#include "export/export_card.h"

#include <fmt/format.h>

#include "base/hub_id.h"
#include "export/card_parts.h"
#include "export/card_text.h"
#include "io/user_path.h"

namespace qlora::exporting {
namespace {

std::string what_it_is(const ExportCard& card, const lora::AdapterBase& base) {
  const std::string name = shown_name(base);
  const std::string form = card.format == "merged"
                               ? fmt::format("in {}", card.type)
                               : fmt::format("as a GGUF file of type {}", card.type);
  const std::string types = card.other_types.empty() ? "" : " " + card.other_types;
  if (!card.adapter)
    return fmt::format("# {0}\n\nThe model {0} {1}, without an adapter, written by qlora.cpp.{2}",
                       name, form, types);
  const std::string adapter = fmt::format("of rank {} and alpha {}, trained with qlora.cpp",
                                          card.adapter->rank, card.adapter->alpha);
  if (card.format == "gguf-lora")
    return fmt::format("# A LoRA adapter for {0}\n\nAn adapter for {0} {1}, {2}. {3}{4}", name,
                       form, adapter, quantization_sentence(base),
                       holds_part_of(base) ? "\n\n" + changed_base_sentences(base) : "");
  std::string text = fmt::format(
      "# {0}, fine-tuned\n\nThe model {0} {1}, with a LoRA adapter merged into its weights. The "
      "adapter is {2}. {3}",
      name, form, adapter, quantization_sentence(base));
  if (card.merge_base == "original")
    text += " The adapter was merged into the weights as they were before their quantization.";
  else if (is_quantized_by_training(base.quantization) || !base.stored_as.empty())
    text += " The adapter was merged into the values that the quantized weights stand for.";
  return text + types;
}

std::string load_merged(const ExportCard& card) {
  return fmt::format(
      "```sh\npip install torch transformers\n```\n\n"
      "```python\nimport torch\nfrom transformers import {0}, AutoTokenizer\n\n"
      "model = {0}.from_pretrained(\"path/to/this/directory\", dtype=torch.{1})\n"
      "tokenizer = AutoTokenizer.from_pretrained(\"path/to/this/directory\")\n```\n",
      card.has_encoder ? "AutoModelForSeq2SeqLM" : "AutoModelForCausalLM", card.type);
}

std::string with_ollama(const ExportCard& card, const std::string& which) {
  std::string text = "With Ollama" + which +
                     ":\n\n```sh\nollama create my-model -f Modelfile\nollama run my-model\n```\n";
  if (card.differences_of_ollama.empty()) return text;
  text += "\nWhat is otherwise there than in training:\n\n";
  for (const std::string& difference : card.differences_of_ollama) text += "- " + difference + "\n";
  return text;
}

std::string run_gguf(const ExportCard& card) {
  if (card.has_encoder)
    return "With qlora.cpp:\n\n```sh\nqlora generate --model model.gguf --prompt TEXT\n```\n";
  return "With llama.cpp, on the terminal or as a server:\n\n"
         "```sh\nllama-cli -m model.gguf\nllama-server -m model.gguf\n```\n\n" +
         with_ollama(card, "") + "\nWith qlora.cpp:\n\n```sh\n" +
         std::string(card.has_template ? "qlora chat --model model.gguf"
                                       : "qlora generate --model model.gguf --prompt TEXT --raw") +
         "\n```\n";
}

// As --model takes it.
std::string place_of_base(const lora::AdapterBase& base) {
  if (base.made_from.empty() && base.path.ends_with(".gguf"))
    return "path/to/" + io::last_part(base.path);
  return hub_id_of(base.name) ? base.name : "path/to/" + io::last_part(base.name);
}

// llama.cpp goes by the template in the base's file.
std::string with_template_file(const ExportCard& card) {
  if (!card.has_template) return "";
  return "The chat template that the adapter was trained with is in `chat_template.jinja`; "
         "`base.gguf` may hold another one. This has llama.cpp take it:\n\n"
         "```sh\nllama-server -m base.gguf --lora adapter.gguf --jinja --chat-template-file "
         "chat_template.jinja\n```\n\n";
}

std::string run_gguf_adapter(const ExportCard& card, const lora::AdapterBase& base) {
  const std::string beside = fmt::format(
      "The base is to lie beside it as a GGUF file, `base.gguf`. This writes it:\n\n"
      "```sh\nqlora export --model {} --format gguf --output base-gguf\n"
      "mv base-gguf/model.gguf base.gguf\n```\n",
      shell_word(place_of_base(base)));
  if (card.has_encoder) return beside + "\nllama.cpp's library loads the two together.\n";
  return beside +
         "\nWith llama.cpp, on the terminal or as a server:\n\n"
         "```sh\nllama-cli -m base.gguf --lora adapter.gguf\n"
         "llama-server -m base.gguf --lora adapter.gguf\n```\n\n" +
         with_template_file(card) + with_ollama(card, ", where Modelfile names both files");
}

std::string how_to_use(const ExportCard& card, const lora::AdapterBase& base) {
  if (card.format == "merged") return "## How to load it\n\n" + load_merged(card);
  return "## How to use it\n\n" +
         (card.format == "gguf" ? run_gguf(card) : run_gguf_adapter(card, base));
}

}  // namespace

std::string export_card(const ExportCard& card, const lora::AdapterBase& base) {
  std::vector<std::string> tags = {"qlora"};
  if (card.format != "merged") tags.insert(tags.begin(), "gguf");
  if (card.format == "gguf-lora") tags.insert(tags.begin(), "lora");
  const std::string library = card.format == "merged" ? "transformers" : "gguf";
  const std::string text = fmt::format(
      "{}\n{}\n\nWhat was written was loaded again; `verification.json` says how near "
      "it came to the model that was to be written.\n\n{}",
      front_matter(library, base, card.has_encoder, tags), what_it_is(card, base),
      how_to_use(card, base));
  return card.training.empty() ? text : text + "\n" + card.training;
}

}  // namespace qlora::exporting
