# qlora_folder(NAME [TORCH] [DEPENDS other...]): the static library of one top-level folder.
# Every .cpp below it belongs to it; *_cuda.cu only in a CUDA build.
function(qlora_folder name)
  cmake_parse_arguments(arg "TORCH" "" "DEPENDS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/${name}/*.cpp")
  if(QLORA_CUDA_ENABLED)
    file(GLOB_RECURSE kernels CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/${name}/*_cuda.cu")
  endif()
  if(NOT sources)
    set(sources "${CMAKE_SOURCE_DIR}/cmake/torch_pch.cpp")
  endif()
  add_library(qlora_${name} STATIC ${sources} ${kernels})
  add_library(qlora::${name} ALIAS qlora_${name})
  target_include_directories(qlora_${name} PUBLIC
    $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}> $<INSTALL_INTERFACE:include/qlora>)
  target_link_libraries(qlora_${name}
    PUBLIC fmt::fmt nlohmann_json::nlohmann_json OpenMP::OpenMP_CXX
    PRIVATE $<BUILD_INTERFACE:qlora_flags> hwy::hwy PkgConfig::xxhash spdlog::spdlog)
  foreach(dependency IN LISTS arg_DEPENDS)
    target_link_libraries(qlora_${name} PUBLIC qlora_${dependency})
  endforeach()
  if(arg_TORCH)
    target_link_libraries(qlora_${name} PUBLIC qlora_torch)
    qlora_precompile(qlora_${name})
  endif()
endfunction()

# Shares one precompiled torch header between all targets that include torch.
function(qlora_precompile target)
  if(NOT QLORA_PCH)
    return()
  endif()
  if(NOT TARGET qlora_pch)
    add_library(qlora_pch OBJECT "${CMAKE_SOURCE_DIR}/cmake/torch_pch.cpp")
    target_link_libraries(qlora_pch PRIVATE qlora_flags qlora_torch OpenMP::OpenMP_CXX)
    target_precompile_headers(qlora_pch PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${CMAKE_SOURCE_DIR}/cmake/torch_pch.h>")
  endif()
  target_precompile_headers(${target} REUSE_FROM qlora_pch)
endfunction()
