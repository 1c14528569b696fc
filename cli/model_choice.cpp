#include "cli/model_choice.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"
#include "base/utf8.h"
#include "data/trained_prompts.h"
#include "io/json_text.h"
#include "model/architecture.h"

namespace qlora::cli {

void add_base_choice(Command command, recipes::ModelChoice& choice) {
  command.add_option("RUN_DIR", choice.run_dir, "Directory of a run; or --model");
  command.add_option("--checkpoint", choice.checkpoint,
                     "Of the run, instead of its last step: best (the lowest evaluation loss) or "
                     "e.g. checkpoint-000040");
  command.add_option("--model", choice.model, "Hugging Face directory, .gguf file or hub id");
  command.add_option("--device", choice.device, "auto, cpu, cuda or cuda:N").with_shown_default();
  command.add_option("--threads", choice.threads, "CPU threads (0: one a core)")
      .not_negative()
      .with_shown_default();
  command
      .add_option("--compute-dtype", choice.compute_dtype,
                  "auto, bfloat16, float16 or float32 (default: the run's)")
      .one_of({"auto", "bfloat16", "float16", "float32"});
  command.add_flag("--any-base", choice.any_base,
                   "Use the adapter though it was trained on another base");
}

void add_model_choice(Command command, recipes::ModelChoice& choice) {
  add_base_choice(command, choice);
  command.add_option("--adapter", choice.adapter, "PEFT adapter directory, on top of --model");
}

void need_chat_template(recipes::ModelChoice& choice, const std::string& instead,
                        const std::string& of_encoder) {
  choice.before_loading = [=](const recipes::Recipe&, const recipes::BaseText& base) {
    if (base.architecture.has_encoder()) {
      if (of_encoder.empty()) return;
      fail<ConfigError>("the model has an encoder and knows no conversations; {}", of_encoder);
    }
    if (base.chat_template == nullptr)
      fail<ConfigError>("the model has no chat template; {}", instead);
  };
}

void tell_trained_prompts(const recipes::TrainedModel& trained,
                          const std::optional<std::string>& raw, bool has_system_message) {
  if (!trained.run_recipe || trained.base.model->architecture().has_encoder()) return;
  const data::TrainedPrompts prompts = data::trained_prompts(trained.run_recipe->data);
  const auto quoted = [](const std::string& text) {
    constexpr size_t kLongest = 80;
    return io::json_text_in_utf8(data::Json(std::string(shortened_utf8(text, kLongest))));
  };
  if (prompts.are_raw && !raw)
    log::write_warning(
        "the rows of the run put prompts as they are (format completion), and here the chat "
        "template is put around them; qlora generate RUN --raw --prompt TEXT gives them so");
  if (raw && !prompts.separator.empty() && !raw->ends_with(prompts.separator))
    log::write_warning(
        fmt::format("prompts of the run's rows end with the separator {}, and this one does not",
                    quoted(prompts.separator)));
  if (!prompts.system.empty() && !raw && !has_system_message)
    log::write_warning(
        fmt::format("the rows of the run have the system message {}, and here there is none; "
                    "--system TEXT gives it",
                    quoted(prompts.system)));
}

}  // namespace qlora::cli
