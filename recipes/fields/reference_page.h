// The reference of recipe keys, made from the lists that read them.
#pragma once

#include <string>

namespace qlora::recipes {

// docs/recipes.md, as Markdown.
std::string reference_page();

}  // namespace qlora::recipes
