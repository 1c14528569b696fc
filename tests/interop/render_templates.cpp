// Renders many conversations in one process: a JSON object a line in, with "template", "messages",
// "context" and "add_generation_prompt"; one a line out, {"text": ...} or {"error": ...}. With
// "prefixes", a list of lengths, {"prefixes": {length: text}}: those that one pass can tell. With
// "marked": true also what generation blocks wrote, {"generated": [[begin, end], ...]} in bytes.
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/chat_template.h"

int main() {
  using qlora::data::Json;
  std::ios::sync_with_stdio(false);
  for (std::string line; std::getline(std::cin, line);) {
    Json answer;
    try {
      const Json job = Json::parse(line);
      const qlora::data::ChatTemplate chat_template(job["template"].get<std::string>());
      if (const auto lengths = job.find("prefixes"); lengths != job.end()) {
        const auto prefixes = chat_template.render_prefixes(
            job["messages"], job["context"], job["add_generation_prompt"].get<bool>(), *lengths);
        answer["prefixes"] = Json::object();
        for (const auto& [length, text] : prefixes.texts) {
          answer["prefixes"][std::to_string(length)] = text.over(prefixes.base);
        }
      } else if (job.contains("marked")) {
        const auto marked = chat_template.render_marked(job["messages"], job["context"]);
        answer["text"] = marked.text;
        answer["generated"] = Json::array();
        for (const auto& span : marked.generated)
          answer["generated"].push_back(Json::array({span.begin, span.end}));
      } else {
        answer["text"] = chat_template.render(job["messages"], job["context"],
                                              job["add_generation_prompt"].get<bool>());
      }
    } catch (const qlora::Error& error) {
      answer["error"] = error.what();
    }
    std::cout << answer.dump() << '\n';
  }
}
