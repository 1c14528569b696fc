#include "data/jinja/filters.h"

#include <algorithm>
#include <array>

#include "data/jinja/json_text.h"

namespace qlora::data::jinja {
namespace {

struct Entry {
  std::string_view name;
  MethodBody body;
};
constexpr std::array kFilters = {
    Entry{"abs", filters::absolute},
    Entry{"attr", filters::attribute},
    Entry{"batch", filters::batch},
    Entry{"capitalize", filters::capitalize},
    Entry{"center", filters::center},
    Entry{"count", filters::length},
    Entry{"d", filters::otherwise},
    Entry{"default", filters::otherwise},
    Entry{"dictsort", filters::dictsort},
    Entry{"e", filters::escape},
    Entry{"escape", filters::escape},
    Entry{"first", filters::first},
    Entry{"float", filters::to_float},
    Entry{"forceescape", filters::force_escape},
    Entry{"format", filters::format},
    Entry{"groupby", filters::groupby},
    Entry{"indent", filters::indent},
    Entry{"int", filters::to_int},
    Entry{"items", filters::items},
    Entry{"join", filters::join},
    Entry{"last", filters::last},
    Entry{"length", filters::length},
    Entry{"list", filters::list},
    Entry{"lower", filters::lower},
    Entry{"map", filters::map},
    Entry{"max", filters::max},
    Entry{"min", filters::min},
    Entry{"reject", filters::reject},
    Entry{"rejectattr", filters::reject_attribute},
    Entry{"replace", filters::replace},
    Entry{"reverse", filters::reverse},
    Entry{"round", filters::round},
    Entry{"safe", filters::safe},
    Entry{"select", filters::select},
    Entry{"selectattr", filters::select_attribute},
    Entry{"slice", filters::slice},
    Entry{"sort", filters::sort},
    Entry{"string", filters::string},
    Entry{"sum", filters::sum},
    Entry{"title", filters::title},
    Entry{"tojson", to_json},
    Entry{"trim", filters::trim},
    Entry{"truncate", filters::truncate},
    Entry{"unique", filters::unique},
    Entry{"upper", filters::upper},
    Entry{"wordcount", filters::wordcount},
};

}  // namespace

MethodBody find_filter(std::string_view name) {
  const auto* found = std::find_if(kFilters.begin(), kFilters.end(),
                                   [&](const Entry& e) { return e.name == name; });
  return found == kFilters.end() ? nullptr : found->body;
}

}  // namespace qlora::data::jinja
