# Build options and flags that hold for every target.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
# Warnings are judged by one compiler; another one's new warnings shall not stop a user's build.
set(werror OFF)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION MATCHES "^12\\.")
  set(werror ON)
endif()

set(QLORA_TORCH_ROOT "${CMAKE_SOURCE_DIR}/third_party/libtorch" CACHE PATH
    "Folder that holds torch/ and nvidia/ (made by scripts/bootstrap.sh)")
option(QLORA_PARQUET "Read Parquet and Arrow files, by Apache Arrow's library" ON)
set(QLORA_ARROW_ROOT "${CMAKE_SOURCE_DIR}/third_party/arrow" CACHE PATH
    "Folder that holds pyarrow/ with headers and libraries (made by scripts/bootstrap.sh)")
set(QLORA_CUDA "OFF" CACHE STRING "CUDA kernels: ON, OFF, or AUTO (ON where nvcc is found)")
set_property(CACHE QLORA_CUDA PROPERTY STRINGS ON OFF AUTO)
option(QLORA_WERROR "Treat warnings as errors (default: with GCC 12)" ${werror})
option(QLORA_SANITIZE "AddressSanitizer and UndefinedBehaviorSanitizer" OFF)
option(QLORA_FUZZ "Sanitizers and the program bin/fuzz on libFuzzer's loop (scripts/fuzz.sh)" OFF)
option(QLORA_PCH "Precompile the headers of libraries (cmake/QloraPrecompile.cmake)" ON)
option(QLORA_TIME_COMPILER "Record the processor time of each compilation and link (scripts/compile_times.sh)" OFF)
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

if(QLORA_TIME_COMPILER)
  set(recorder "\"${CMAKE_SOURCE_DIR}/scripts/compile_times.sh\" record \"${CMAKE_BINARY_DIR}/compile_times.txt\"")
  set_property(GLOBAL PROPERTY RULE_LAUNCH_COMPILE "${recorder}")
  set_property(GLOBAL PROPERTY RULE_LAUNCH_LINK "${recorder}")
endif()

add_library(qlora_flags INTERFACE)
# -fPIC everywhere, so that programs can share the libraries' precompiled header.
# No contraction: a*b+c rounds twice on every instruction set, so that all of them give the same bits.
target_compile_options(qlora_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wno-restrict -fPIC -ffp-contract=off -fno-math-errno -fno-trapping-math -fopenmp>
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-fPIC,-ffp-contract=off>)
if(QLORA_WERROR)
  target_compile_options(qlora_flags INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Werror> $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
endif()
if(QLORA_FUZZ)
  set(QLORA_SANITIZE ON)
  # GCC calls a function at each block and comparison; tests/fuzz/libfuzzer_main.cpp counts them where libFuzzer looks.
  target_compile_options(qlora_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize-coverage=trace-pc,trace-cmp>)
endif()
if(QLORA_SANITIZE)
  # _GLIBCXX_ASSERTIONS: checked indices; it leaves the library's layout, and so LibTorch, alone.
  target_compile_options(qlora_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=address,undefined
    -fno-sanitize-recover=undefined -fno-omit-frame-pointer -D_GLIBCXX_ASSERTIONS -Wno-maybe-uninitialized>)
  target_link_options(qlora_flags INTERFACE -fsanitize=address,undefined)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g")
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g")

if(QLORA_CUDA STREQUAL "AUTO")
  include(CheckLanguage)
  check_language(CUDA)
  set(QLORA_CUDA_ENABLED ${CMAKE_CUDA_COMPILER})
else()
  set(QLORA_CUDA_ENABLED ${QLORA_CUDA})
endif()
if(QLORA_CUDA_ENABLED)
  # Code for 80 also runs on 86 and 89; newer GPUs translate the intermediate code of 90 when they load it.
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80 90 CACHE STRING "")
  endif()
  set(CMAKE_CUDA_STANDARD 17)
  enable_language(CUDA)
endif()
