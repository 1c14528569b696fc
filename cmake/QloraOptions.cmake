# Build options and flags that hold for every target.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

set(QLORA_CUDA "OFF" CACHE STRING "CUDA kernels: ON, OFF, or AUTO (ON where nvcc is found)")
set_property(CACHE QLORA_CUDA PROPERTY STRINGS ON OFF AUTO)
option(QLORA_WERROR "Treat warnings as errors" ON)
option(QLORA_SANITIZE "AddressSanitizer and UndefinedBehaviorSanitizer" OFF)
option(QLORA_PCH "Precompile the torch headers (a file then compiles in 3 s instead of 13 s)" ON)
option(QLORA_BUILD_PROGRAM "Build the qlora program" ON)
option(QLORA_BUILD_TESTS "Build the tests" ON)
option(QLORA_BUILD_BENCH "Build the benchmarks" OFF)

find_program(QLORA_CCACHE ccache)
if(QLORA_CCACHE)
  # The precompiled header is named in the flags, not in the text: ccache needs to be told so.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${QLORA_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${QLORA_CCACHE})
endif()

add_library(qlora_flags INTERFACE)
# -Wno-restrict: GCC 12 warns falsely about std::string (its bug 105329).
# -fPIC everywhere, so that programs can share the libraries' precompiled header.
# No contraction: a*b+c rounds twice on every instruction set, so that all of them give the same bits.
target_compile_options(qlora_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wno-restrict -fPIC -ffp-contract=off -fno-math-errno -fno-trapping-math -fopenmp>)
if(QLORA_WERROR)
  target_compile_options(qlora_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(QLORA_SANITIZE)
  target_compile_options(qlora_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=address,undefined -fno-omit-frame-pointer>)
  target_link_options(qlora_flags INTERFACE -fsanitize=address,undefined)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g")

if(QLORA_CUDA STREQUAL "AUTO")
  include(CheckLanguage)
  check_language(CUDA)
  set(QLORA_CUDA_ENABLED ${CMAKE_CUDA_COMPILER})
else()
  set(QLORA_CUDA_ENABLED ${QLORA_CUDA})
endif()
if(QLORA_CUDA_ENABLED)
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80 90 CACHE STRING "")
  endif()
  set(CMAKE_CUDA_STANDARD 17)
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
endif()
