#include "data/tokenizers/metaspace.h"

#include "base/utf8.h"

namespace qlora::data {
namespace {

PrependScheme parse_prepend_scheme(const io::JsonNode& node) {
  const auto scheme = node.find("prepend_scheme");
  const bool prefix = node.bool_or("add_prefix_space", true);
  if (!scheme) return prefix ? PrependScheme::kAlways : PrependScheme::kNever;
  const std::string name = scheme->as_string();
  if (name != "first" && name != "never" && name != "always") {
    scheme->reject("first, never or always");
  }
  if (!prefix && name != "never") scheme->reject("'never' beside add_prefix_space: false");
  if (name == "first") return PrependScheme::kFirst;
  return name == "never" ? PrependScheme::kNever : PrependScheme::kAlways;
}

}  // namespace

MetaspaceOptions parse_metaspace(const io::JsonNode& node) {
  MetaspaceOptions options;
  if (const auto replacement = node.find("replacement")) {
    options.replacement = replacement->as_string();
    if (options.replacement.empty() ||
        utf8_length(options.replacement[0]) != options.replacement.size()) {
      replacement->reject("one character");
    }
  }
  options.prepend = parse_prepend_scheme(node);
  options.split = node.bool_or("split", true);
  return options;
}

}  // namespace qlora::data
