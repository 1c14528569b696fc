// A page that shows runs or rows in a browser: one file that needs no network. Its parts are the
// files of recipes/report/page, built in.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace qlora::recipes {

const std::map<std::string, std::string>& page_parts();  // by file name: "page.html", "charts.js"

// The page with `data` in it, as page.js reads it. Whatever texts `data` holds, none of them ends
// the script element they lie in; the page makes text nodes of them.
std::string page_with(const nlohmann::ordered_json& data);

// ConfigError if the path holds anything but such a page, which may be replaced, or is no place for
// one (output_place.h).
void require_page_file(const std::string& path);

// Writes it. IoError, and the error above.
void write_page(const std::string& path, const nlohmann::ordered_json& data);

}  // namespace qlora::recipes
