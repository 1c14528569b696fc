# qlora_precompile(TARGET): gives each source of TARGET the precompiled header that fits what it includes, by itself or
# through headers of this project. Even an empty file pays for what it is given: 0.2 s for `standard`, 0.5 s for `tensor`,
# 1.5 s for `aten`, 5 s if that also held autograd's templates; a file that includes ATen.h by itself takes 10 s.
#
#   standard  the standard library and fmt; kernels (*_cpu.cpp) get this one too
#   json      and nlohmann/json.hpp
#   tensor    and ATen/core/Tensor.h, for files that pass tensors on
#   aten      and ATen/ATen.h without JSON, for files that compute with tensors
#   test, test_aten   and GoogleTest
#
# A source is read when CMake runs: what it includes later still compiles, only slower until the next configuration.
set(QLORA_PRECOMPILED_DIR "${CMAKE_SOURCE_DIR}/cmake/precompiled")

function(qlora_precompile target)
  if(NOT QLORA_PCH)
    return()
  endif()
  get_target_property(sources ${target} SOURCES)
  foreach(source IN LISTS sources)
    cmake_path(ABSOLUTE_PATH source BASE_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}" NORMALIZE)
    if(NOT source MATCHES "\\.cpp$" OR NOT EXISTS "${source}")
      continue()
    endif()
    qlora_reached_headers("${source}" reached)
    qlora_choose_precompiled("${reached}" name)
    qlora_precompiled_header(${name} header file)
    set_source_files_properties("${source}" PROPERTIES
      COMPILE_OPTIONS "-Winvalid-pch;-include;${header}" OBJECT_DEPENDS "${file}")
    add_dependencies(${target} qlora_precompiled_${name})
  endforeach()
endfunction()

# Which of gtest, aten, tensor, json FILE includes, directly or through headers of this project.
function(qlora_reached_headers file result)
  get_property(is_known GLOBAL PROPERTY "qlora_reached ${file}" SET)
  if(NOT is_known)
    set_property(GLOBAL PROPERTY "qlora_reached ${file}" "")  # a header that includes itself ends here
    file(STRINGS "${file}" lines REGEX "^#include ")
    set(reached "")
    foreach(line IN LISTS lines)
      if(line MATCHES "<g(test|mock)/")
        list(APPEND reached gtest)
      elseif(line MATCHES "<(ATen/ATen\\.h|torch/csrc/)")
        list(APPEND reached aten)
      elseif(line MATCHES "<ATen/core/Tensor\\.h>")
        list(APPEND reached tensor)
      elseif(line MATCHES "[<\"]nlohmann/json\\.hpp[>\"]")
        list(APPEND reached json)
      elseif(line MATCHES "\"(.+)\"")
        cmake_path(APPEND CMAKE_SOURCE_DIR "${CMAKE_MATCH_1}" OUTPUT_VARIABLE header)
        if(EXISTS "${header}")
          qlora_reached_headers("${header}" others)
          list(APPEND reached ${others})
        endif()
      endif()
    endforeach()
    list(REMOVE_DUPLICATES reached)
    set_property(GLOBAL PROPERTY "qlora_reached ${file}" "${reached}")
  endif()
  get_property(reached GLOBAL PROPERTY "qlora_reached ${file}")
  set(${result} "${reached}" PARENT_SCOPE)
endfunction()

function(qlora_choose_precompiled reached result)
  set(name standard)
  if("gtest" IN_LIST reached)
    set(name test)
    if("aten" IN_LIST reached OR "tensor" IN_LIST reached)
      set(name test_aten)
    endif()
  else()
    foreach(wider json tensor aten)
      if(wider IN_LIST reached)
        set(name ${wider})
      endif()
    endforeach()
  endif()
  set(${result} ${name} PARENT_SCOPE)
endfunction()

# The path to include and the file to wait for; the target that makes them when NAME is asked for the first time.
function(qlora_precompiled_header name header file)
  set(target qlora_precompiled_${name})
  if(NOT TARGET ${target})
    add_library(${target} OBJECT "${QLORA_PRECOMPILED_DIR}/empty.cpp")
    target_link_libraries(${target} PRIVATE qlora_flags fmt::fmt nlohmann_json::nlohmann_json OpenMP::OpenMP_CXX)
    if(name MATCHES "tensor|aten")
      target_link_libraries(${target} PRIVATE qlora::torch)
    endif()
    if(name MATCHES "^test")
      target_link_libraries(${target} PRIVATE GTest::gmock GTest::gtest)  # which may define a macro
    endif()
    target_precompile_headers(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${QLORA_PRECOMPILED_DIR}/${name}.h>")
  endif()
  get_target_property(place ${target} BINARY_DIR)
  set(made "${place}/CMakeFiles/${target}.dir/cmake_pch.hxx")
  set(${header} "${made}" PARENT_SCOPE)
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    set(${file} "${made}.pch" PARENT_SCOPE)
  else()
    set(${file} "${made}.gch" PARENT_SCOPE)
  endif()
endfunction()
