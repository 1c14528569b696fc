#include "cli/render.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "data/chat_renderer.h"
#include "data/chat_template.h"
#include "data/exact_json.h"
#include "data/messages_file.h"
#include "data/tokenizer.h"
#include "io/file_kind.h"
#include "io/read_file.h"

namespace {

using qlora::data::ChatTemplate;
using qlora::data::Json;

struct RenderOptions {
  std::string tokenizer, template_file, messages, context;
  bool add_generation_prompt = false;
};

Json read_context(const std::string& path) {
  if (path.empty()) return Json::object();
  const std::string what = "a JSON object of the template's variables";
  Json context = qlora::data::read_exact_json(path, what);
  if (!context.is_object())
    qlora::fail<qlora::FormatError>("{} must be {}, found {}", path, what, context.type_name());
  return context;
}

std::string render(const RenderOptions& options, const Json& messages, const Json& context) {
  if (options.tokenizer.empty()) {
    const std::string source = qlora::io::read_bytes(options.template_file);
    if (const std::string kind = qlora::io::text_file_kind(source); !kind.empty())
      qlora::fail<qlora::FormatError>("{} is {}", options.template_file, kind);
    const ChatTemplate chat_template(source, options.template_file);
    return chat_template.render(messages, context, options.add_generation_prompt);
  }
  const auto tokenizer = qlora::data::load_tokenizer(options.tokenizer);
  const auto chat_template = qlora::data::choose_chat_template("", *tokenizer);
  if (!chat_template) {
    qlora::fail<qlora::FormatError>("{} has no chat template; give one with --template",
                                    options.tokenizer);
  }
  return qlora::data::ChatRenderer(*chat_template, *tokenizer)
      .render(messages, context, options.add_generation_prompt);
}

void run(const RenderOptions& options) {
  if (options.tokenizer.empty() == options.template_file.empty()) {
    throw qlora::ConfigError("give either --model PATH or --template FILE");
  }
  fmt::print("{}", render(options, qlora::data::read_messages(options.messages),
                          read_context(options.context)));
}

}  // namespace

void add_render_command(qlora::cli::Command app) {
  auto options = std::make_shared<RenderOptions>();
  qlora::cli::Command command =
      app.add_subcommand("render", "Messages as the text that a chat template makes of them");
  command.add_option("--model,--tokenizer", options->tokenizer,
                     "Model directory, tokenizer.json or .gguf whose template and special tokens "
                     "are used; or --template");
  command.add_option("--template", options->template_file, "Jinja file");
  command.add_option("--messages", options->messages, "JSON array of messages").required();
  command.add_option("--context", options->context,
                     "JSON object of further variables for the template");
  command.add_flag("--add-generation-prompt", options->add_generation_prompt,
                   "End with what an answer begins with");
  command.callback([options] { run(*options); });
}
