# What the project links. scripts/bootstrap.sh installs or unpacks all of it.
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(hwy REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(pcre2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)

add_library(qlora::sentencepiece UNKNOWN IMPORTED)
find_library(SENTENCEPIECE_LIBRARY sentencepiece REQUIRED)
find_path(SENTENCEPIECE_INCLUDE_DIR sentencepiece_processor.h REQUIRED)
set_target_properties(qlora::sentencepiece PROPERTIES
  IMPORTED_LOCATION "${SENTENCEPIECE_LIBRARY}"
  INTERFACE_INCLUDE_DIRECTORIES "${SENTENCEPIECE_INCLUDE_DIR}")

# LibTorch: the unpacked PyPI wheel. Its CMake package insists on a whole CUDA toolkit, so the few
# libraries are named here. -idirafter: system headers win over the copies of fmt the wheel carries.
set(QLORA_TORCH_ROOT "${CMAKE_SOURCE_DIR}/third_party/libtorch" CACHE PATH
    "Folder that holds torch/ and nvidia/ (made by scripts/bootstrap.sh)")
if(NOT EXISTS "${QLORA_TORCH_ROOT}/torch/lib/libtorch_cpu.so")
  message(FATAL_ERROR "LibTorch is not in ${QLORA_TORCH_ROOT}. Run scripts/bootstrap.sh, or set QLORA_TORCH_ROOT.")
endif()
set(torch_lib "${QLORA_TORCH_ROOT}/torch/lib")
add_library(qlora_torch INTERFACE)
target_compile_options(qlora_torch INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:SHELL:-idirafter ${QLORA_TORCH_ROOT}/torch/include -idirafter ${QLORA_TORCH_ROOT}/torch/include/torch/csrc/api/include>")
target_link_libraries(qlora_torch INTERFACE "${torch_lib}/libtorch_cpu.so" "${torch_lib}/libc10.so")
# The wheel's libraries carry their own RPATH; what they need beyond that is not ours to resolve.
target_link_options(qlora_torch INTERFACE "-Wl,--allow-shlib-undefined" "-Wl,-rpath,${torch_lib}")
if(QLORA_CUDA_ENABLED)
  # --no-as-needed: the CUDA backend registers itself when it is loaded.
  target_link_libraries(qlora_torch INTERFACE
    "-Wl,--no-as-needed,${torch_lib}/libtorch_cuda.so,${torch_lib}/libc10_cuda.so,--as-needed" CUDA::cudart)
  target_compile_definitions(qlora_torch INTERFACE QLORA_CUDA=1)
endif()
