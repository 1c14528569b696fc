# Builds the parts of the page of `qlora report` (recipes/report/page) into the program, one text by file name.
file(GLOB page_files CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/recipes/report/page/*")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${page_files})
set(page_entries "")
foreach(file IN LISTS page_files)
  get_filename_component(name "${file}" NAME)
  file(READ "${file}" text)
  string(APPEND page_entries "      {\"${name}\", R\"page(${text})page\"},\n")
endforeach()
file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/generated/report_page_parts.cpp" CONTENT
"#include \"recipes/report/page.h\"

namespace qlora::recipes {

const std::map<std::string, std::string>& page_parts() {
  static const std::map<std::string, std::string> parts = {
@page_entries@  };
  return parts;
}

}  // namespace qlora::recipes
" @ONLY)
target_sources(qlora_recipes PRIVATE "${CMAKE_BINARY_DIR}/generated/report_page_parts.cpp")
