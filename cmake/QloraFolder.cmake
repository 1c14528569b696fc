# qlora_folder(NAME [TORCH] [DEPENDS other...]): the static library of one top-level folder.
# Every .cpp below it belongs to it; *_cuda.cu only in a CUDA build, folders called arrow only with QLORA_PARQUET.
function(qlora_folder name)
  cmake_parse_arguments(arg "TORCH" "" "DEPENDS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/${name}/*.cpp")
  if(NOT QLORA_PARQUET)
    list(FILTER sources EXCLUDE REGEX "/arrow/[^/]*$")
  endif()
  if(QLORA_CUDA_ENABLED)
    file(GLOB_RECURSE kernels CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/${name}/*_cuda.cu")
  endif()
  add_library(qlora_${name} STATIC ${sources} ${kernels})
  add_library(qlora::${name} ALIAS qlora_${name})
  set_target_properties(qlora_${name} PROPERTIES EXPORT_NAME ${name} POSITION_INDEPENDENT_CODE ON)
  target_compile_features(qlora_${name} PUBLIC cxx_std_20)
  target_include_directories(qlora_${name} PUBLIC
    $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}> $<INSTALL_INTERFACE:include/qlora>)
  target_link_libraries(qlora_${name}
    PUBLIC fmt::fmt nlohmann_json::nlohmann_json OpenMP::OpenMP_CXX
    PRIVATE $<BUILD_INTERFACE:qlora_flags> PkgConfig::xxhash spdlog::spdlog)
  foreach(dependency IN LISTS arg_DEPENDS)
    target_link_libraries(qlora_${name} PUBLIC qlora_${dependency})
  endforeach()
  if(arg_TORCH)
    target_link_libraries(qlora_${name} PUBLIC qlora::torch)
  endif()
  qlora_precompile(qlora_${name})
endfunction()
