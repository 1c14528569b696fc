// The conversation formats of well-known model families, for models that bring no template. Each
// says only what the format itself fixes: markers, where BOS and EOS stand, who may speak when.
#include <fmt/ranges.h>

#include <array>
#include <string>

#include "base/error.h"
#include "data/chat_template.h"

namespace qlora::data {
namespace {

constexpr const char* kChatml =
    R"({%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %})";

// The system text stands inside the first user turn; every exchange begins with BOS.
constexpr const char* kLlama2 =
    R"({%- set ns = namespace(system='') %}
{%- set turns = messages %}
{%- if messages and messages[0]['role'] == 'system' %}
{%- set ns.system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}
{%- set turns = messages[1:] %}
{%- endif %}
{%- for message in turns %}
{%- if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') %}
{{- raise_exception('user and assistant must take turns, and a user must begin') }}
{%- endif %}
{%- if message['role'] == 'user' %}
{{- bos_token + '[INST] ' + (ns.system if loop.first else '') + message['content'] | trim + ' [/INST]' }}
{%- else %}
{{- ' ' + message['content'] | trim + ' ' + eos_token }}
{%- endif %}
{%- endfor %})";

constexpr const char* kLlama3 =
    R"({{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %})";

constexpr const char* kAlpaca =
    R"({%- set turns = messages %}
{%- if messages and messages[0]['role'] == 'system' %}
{{- messages[0]['content'] + '\n\n' }}
{%- set turns = messages[1:] %}
{%- else %}
{{- 'Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n' }}
{%- endif %}
{%- for message in turns %}
{%- if message['role'] == 'user' %}
{{- '### Instruction:\n' + message['content'] + '\n\n' }}
{%- elif message['role'] == 'assistant' %}
{{- '### Response:\n' + message['content'] + eos_token + '\n\n' }}
{%- else %}
{{- raise_exception('the alpaca format knows user and assistant, and a system message first') }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '### Response:\n' }}
{%- endif %})";

constexpr const char* kVicuna =
    R"({%- set turns = messages %}
{%- if messages and messages[0]['role'] == 'system' %}
{{- bos_token + messages[0]['content'] + ' ' }}
{%- set turns = messages[1:] %}
{%- else %}
{{- bos_token + "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. " }}
{%- endif %}
{%- for message in turns %}
{%- if message['role'] == 'user' %}
{{- 'USER: ' + message['content'] | trim + ' ' }}
{%- elif message['role'] == 'assistant' %}
{{- 'ASSISTANT: ' + message['content'] | trim + eos_token }}
{%- else %}
{{- raise_exception('the vicuna format knows user and assistant, and a system message first') }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- 'ASSISTANT:' }}
{%- endif %})";

constexpr const char* kZephyr =
    R"({%- for message in messages %}
{{- '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>\n' }}
{%- endif %})";

// One BOS for all; the system text stands before the first user's.
constexpr const char* kMistral =
    R"({%- set ns = namespace(system='') %}
{%- set turns = messages %}
{%- if messages and messages[0]['role'] == 'system' %}
{%- set ns.system = messages[0]['content'] + '\n\n' %}
{%- set turns = messages[1:] %}
{%- endif %}
{{- bos_token }}
{%- for message in turns %}
{%- if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') %}
{{- raise_exception('user and assistant must take turns, and a user must begin') }}
{%- endif %}
{%- if message['role'] == 'user' %}
{{- '[INST] ' + (ns.system if loop.first else '') + message['content'] + ' [/INST]' }}
{%- else %}
{{- ' ' + message['content'] + eos_token }}
{%- endif %}
{%- endfor %})";

constexpr const char* kGemma =
    R"({{- bos_token }}
{%- set ns = namespace(system='') %}
{%- set turns = messages %}
{%- if messages and messages[0]['role'] == 'system' %}
{%- set ns.system = messages[0]['content'] | trim + '\n\n' %}
{%- set turns = messages[1:] %}
{%- endif %}
{%- for message in turns %}
{%- if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') %}
{{- raise_exception('user and assistant must take turns, and a user must begin') }}
{%- endif %}
{%- set role = 'model' if message['role'] == 'assistant' else 'user' %}
{{- '<start_of_turn>' + role + '\n' + (ns.system if loop.first else '') + message['content'] | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<start_of_turn>model\n' }}
{%- endif %})";

constexpr const char* kPhi3 =
    R"({%- for message in messages %}
{{- '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>\n' }}
{%- endif %})";

struct Builtin {
  std::string name, text;
};

const std::array<Builtin, 9>& builtins() {
  static const std::array<Builtin, 9> all = {{{"chatml", kChatml},
                                              {"llama-2", kLlama2},
                                              {"llama-3", kLlama3},
                                              {"alpaca", kAlpaca},
                                              {"vicuna", kVicuna},
                                              {"zephyr", kZephyr},
                                              {"mistral", kMistral},
                                              {"gemma", kGemma},
                                              {"phi-3", kPhi3}}};
  return all;
}

}  // namespace

const std::vector<std::string>& builtin_chat_template_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Builtin& builtin : builtins()) all.push_back(builtin.name);
    return all;
  }();
  return names;
}

const std::string& builtin_chat_template(const std::string& name) {
  for (const Builtin& builtin : builtins())
    if (builtin.name == name) return builtin.text;
  fail<ConfigError>("the chat template must be a file, template text or one of {}; found '{}'",
                    fmt::join(builtin_chat_template_names(), ", "), name);
}

}  // namespace qlora::data
