# Builds the YAML files of recipes/ready into the program.
file(GLOB ready_files CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/recipes/ready/*.yaml")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${ready_files})
set(ready_entries "")
foreach(file IN LISTS ready_files)
  get_filename_component(name "${file}" NAME_WE)
  file(READ "${file}" text)
  string(APPEND ready_entries "      {\"${name}\", R\"recipe(${text})recipe\"},\n")
endforeach()
file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/generated/ready_recipes_table.cpp" CONTENT
"#include \"recipes/ready_recipes.h\"

namespace qlora::recipes {

const std::vector<ReadyRecipe>& ready_recipes() {
  static const std::vector<ReadyRecipe> all = {
@ready_entries@  };
  return all;
}

}  // namespace qlora::recipes
" @ONLY)
target_sources(qlora_recipes PRIVATE "${CMAKE_BINARY_DIR}/generated/ready_recipes_table.cpp")
