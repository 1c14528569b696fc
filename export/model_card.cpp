#include "export/model_card.h"

#include <fmt/ranges.h>

#include "base/hub_id.h"
#include "export/card_parts.h"
#include "export/card_text.h"
#include "export/load_packages.h"
#include "io/user_path.h"

namespace qlora::exporting {
namespace {
using io::last_part;
using quant::QuantizationOptions;

bool is_gguf(const lora::AdapterBase& base) { return base.path.ends_with(".gguf"); }

// "org/name", revision="abc": as from_pretrained takes it.
std::string hub_argument(const HubId& hub) {
  std::string argument = python_text(hub.id);
  if (!hub.revision.empty()) argument += ", revision=" + python_text(hub.revision);
  return argument;
}

// What from_pretrained takes as the base: a hub id, with its revision, or a place to fill in.
std::string base_argument(const lora::AdapterBase& base) {
  const auto hub = hub_id_of(base.name);
  return hub ? hub_argument(*hub) : python_text("path/to/" + last_part(base.name));
}

// The same for a GGUF file. base.name may be the id of another model, of which the file was made.
std::string gguf_argument(const lora::AdapterBase& base) {
  const auto file = hub_file_of(base.path);
  return file ? hub_argument(file->hub) + ", gguf_file=" + python_text(file->file)
              : "\"directory/of/the/file\", gguf_file=" + python_text(last_part(base.path));
}

// Brings the GGUF file from the hub, where it comes from there, for the commands behind it.
std::string download_command(const lora::AdapterBase& base) {
  const auto file = hub_file_of(base.path);
  if (!file) return "";
  return fmt::format("hf download {} {} --revision {} --local-dir .\n", shell_word(file->hub.id),
                     shell_word(file->file), shell_word(file->hub.revision));
}

// As download_command() has it; or as it is called.
std::string gguf_place(const lora::AdapterBase& base) {
  const auto file = hub_file_of(base.path);
  return file ? file->file : last_part(base.path);
}

std::vector<std::string> each(const std::vector<std::string>& names,
                              std::string (*in_form)(const std::string&)) {
  std::vector<std::string> texts;
  for (const std::string& name : names) texts.push_back(in_form(name));
  return texts;
}

const char* python_bool(bool value) { return value ? "True" : "False"; }

// BitsAndBytesConfig(...) of the training. What is not known of the products is taken to be as the
// modules that stay unquantized.
std::string quantization_config(const lora::AdapterBase& base) {
  const QuantizationOptions& q = base.quantization;
  const std::string skipped = q.skip_modules.empty()
                                  ? ""
                                  : fmt::format("    llm_int8_skip_modules=[{}],\n",
                                                fmt::join(each(q.skip_modules, python_text), ", "));
  if (q.method.starts_with("int8"))
    return fmt::format(
        "BitsAndBytesConfig(\n    load_in_8bit=True,\n    llm_int8_threshold={:.1f},\n{})",
        q.method == "int8" ? q.threshold : 0.0, skipped);
  return fmt::format(
      "BitsAndBytesConfig(\n    load_in_4bit=True,\n    bnb_4bit_quant_type=\"{}\",\n"
      "    bnb_4bit_use_double_quant={},\n    bnb_4bit_compute_dtype=torch.{},\n{})",
      q.method, python_bool(q.double_quant),
      base.compute_dtype.empty() ? base.dtype : base.compute_dtype, skipped);
}

std::string quantize_command(const lora::AdapterBase& base) {
  const QuantizationOptions &q = base.quantization, defaults;
  std::string command =
      fmt::format("qlora quantize --model {} --method {} --dtype {} --output base",
                  shell_word(gguf_place(base)), q.method, base.dtype);
  if (q.method == "int8_weight_only")
    command = fmt::format(
        "qlora quantize --model {} --method int8 --threshold 0 --dtype {} "
        "--output base",
        shell_word(gguf_place(base)), base.dtype);
  if (q.method == "int8" && q.threshold != defaults.threshold)
    command += fmt::format(" --threshold {}", q.threshold);
  if (q.method.ends_with("f4") || q.method.ends_with("p4")) {
    if (!q.double_quant) command += " --no-double-quant";
    if (q.block_size != defaults.block_size)
      command += fmt::format(" --block-size {}", q.block_size);
  }
  if (q.skip_modules != defaults.skip_modules && !q.skip_modules.empty())
    command += fmt::format(" --skip-modules {}", fmt::join(each(q.skip_modules, shell_word), " "));
  return command;
}

// `loader`: the class of transformers that loads the base.
std::string python(const std::string& loader, const std::string& imports, const std::string& before,
                   const std::string& arguments) {
  return fmt::format(
      "```python\nimport torch\nfrom peft import PeftModel\n"
      "from transformers import {}{}\n\n{}"
      "model = {}.from_pretrained({})\n"
      "model = PeftModel.from_pretrained(model, \"path/to/this/directory\")\n```\n",
      loader, imports, before, loader, arguments);
}

// transformers loads a GGUF file unquantized only: with quantized weights the base is written once.
std::string load_gguf(const std::string& loader, const lora::AdapterBase& base) {
  const std::string plain =
      python(loader, "", "", fmt::format("{}, dtype=torch.{}", gguf_argument(base), base.dtype));
  if (!is_quantized_by_training(base.quantization)) return plain;
  return fmt::format(
      "transformers cannot quantize a GGUF file while it loads it. This writes the base as it was "
      "in training, to the bit:\n\n```sh\n{}{}\n```\n\n{}\n"
      "Without that, and with the package gguf, {} loads the same weights "
      "unquantized. The adapter works on them, but it was trained on the quantized ones.\n",
      download_command(base), quantize_command(base),
      python(loader, "", "", fmt::format("\"base\", dtype=torch.{}", base.dtype)),
      code_span(fmt::format("from_pretrained({})", gguf_argument(base))));
}

std::string how_to_load(const std::string& loader, const lora::AdapterBase& base) {
  const std::string as_it_is =
      python(loader, "", "", fmt::format("{}, dtype=torch.{}", base_argument(base), base.dtype));
  if (holds_part_of(base)) return changed_base_sentences(base) + "\n\n" + as_it_is;
  if (!base.made_from.empty())
    return fmt::format(
               "Its run wrote {}, quantized as it was in training, to the directory {}, which this "
               "call loads.\n\n",
               shown_name(base), code_span(last_part(base.name))) +
           as_it_is;
  if (is_gguf(base)) return load_gguf(loader, base);
  if (!is_quantized_by_training(base.quantization)) return as_it_is;
  return python(loader, ", BitsAndBytesConfig",
                fmt::format("quantization = {}\n", quantization_config(base)),
                fmt::format("{}, quantization_config=quantization, dtype=torch.{}",
                            base_argument(base), base.dtype));
}

// For calls that load base and adapter at once; nothing where a hub id tells them the base.
std::string named_place(const std::string& loader, const lora::AdapterBase& base) {
  if (hub_id_of(base.name)) return "";
  std::string place =
                  fmt::format("where {} lies, or to its hub id", code_span(last_part(base.name))),
              more;
  if (!base.made_from.empty()) {
    place = fmt::format("where the directory {} lies", code_span(last_part(base.name)));
  } else if (is_gguf(base) && is_quantized_by_training(base.quantization)) {
    place = "where the directory `base` lies";
  } else if (is_gguf(base)) {
    place = "the directory of the file, or to its hub id";
    more = ", and give the call gguf_file=" + markdown_text(python_text(gguf_place(base)));
  }
  return fmt::format(
      "\n`AutoPeft{}.from_pretrained`, which loads the two in one call, finds the base by "
      "`base_model_name_or_path` in `adapter_config.json`. Set that to {}{}, before you use the "
      "call and before you give the adapter to others.\n",
      loader.substr(std::string("Auto").size()), place, more);
}

}  // namespace

std::string model_card(const lora::LoraOptions& options, const lora::AdapterBase& base,
                       bool has_encoder, const std::string& training) {
  std::string card = front_matter("peft", base, has_encoder, {"lora", "qlora"});
  card += fmt::format(
      "\n# A LoRA adapter for {}\n\n"
      "Rank {}, alpha {}, trained with qlora.cpp. {}\n\n## How to load it\n\n"
      "These are the packages that it takes:\n\n```sh\n{}\n```\n\n",
      shown_name(base), options.rank, options.alpha, quantization_sentence(base),
      install_command(base));
  const std::string loader = has_encoder ? "AutoModelForSeq2SeqLM" : "AutoModelForCausalLM";
  card += how_to_load(loader, base) + named_place(loader, base);
  const QuantizationOptions defaults;
  if (base.quantization.block_size != defaults.block_size && !is_gguf(base) &&
      base.made_from.empty())
    card += fmt::format(
        "\nThe block size was {}, which transformers has no setting for: `qlora quantize "
        "--block-size {}` writes such a base.\n",
        base.quantization.block_size, base.quantization.block_size);
  return training.empty() ? card : card + "\n" + training;
}

}  // namespace qlora::exporting
