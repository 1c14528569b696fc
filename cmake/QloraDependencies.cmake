# What the libraries link; scripts/bootstrap.sh installs or unpacks all of it. Read by the build and, installed
# beside qloraConfig.cmake, by programs that find_package(qlora). Expects QLORA_TORCH_ROOT, QLORA_CUDA_ENABLED, QLORA_PARQUET and,
# with it, QLORA_ARROW_ROOT.
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(pcre2 REQUIRED IMPORTED_TARGET GLOBAL libpcre2-8)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET GLOBAL libxxhash)
pkg_check_modules(zlib REQUIRED IMPORTED_TARGET GLOBAL zlib)
pkg_check_modules(zstd REQUIRED IMPORTED_TARGET GLOBAL libzstd)

if(QLORA_CUDA_ENABLED)
  find_package(CUDAToolkit REQUIRED)
endif()

# A project may find the package in several of its folders; what is GLOBAL is there by then.
if(TARGET qlora::torch)
  return()
endif()
find_library(SENTENCEPIECE_LIBRARY sentencepiece REQUIRED)
find_path(SENTENCEPIECE_INCLUDE_DIR sentencepiece_processor.h REQUIRED)
add_library(qlora::sentencepiece UNKNOWN IMPORTED GLOBAL)
set_target_properties(qlora::sentencepiece PROPERTIES
  IMPORTED_LOCATION "${SENTENCEPIECE_LIBRARY}"
  INTERFACE_INCLUDE_DIRECTORIES "${SENTENCEPIECE_INCLUDE_DIR}")

# LibTorch: the unpacked PyPI wheel. Its CMake package insists on a whole CUDA toolkit, so the few
# libraries are named here. -idirafter: system headers win over the copies of fmt the wheel carries.
set(qlora_torch_lib "${QLORA_TORCH_ROOT}/torch/lib")
set(qlora_torch_include "${QLORA_TORCH_ROOT}/torch/include")
if(NOT EXISTS "${qlora_torch_lib}/libtorch_cpu.so")
  message(FATAL_ERROR "LibTorch is not in '${QLORA_TORCH_ROOT}'. Run scripts/bootstrap.sh, or set QLORA_TORCH_ROOT "
    "to a folder that holds torch/ and nvidia/ as the PyPI wheels have them.")
endif()
add_library(qlora::torch INTERFACE IMPORTED GLOBAL)
target_compile_options(qlora::torch INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:SHELL:-idirafter ${qlora_torch_include} -idirafter ${qlora_torch_include}/torch/csrc/api/include>")
target_link_libraries(qlora::torch INTERFACE "${qlora_torch_lib}/libtorch_cpu.so" "${qlora_torch_lib}/libc10.so")
# The wheel's libraries carry their own RPATH; what they need beyond that is not ours to resolve.
target_link_options(qlora::torch INTERFACE "-Wl,--allow-shlib-undefined")
if(QLORA_CUDA_ENABLED)
  if(NOT EXISTS "${qlora_torch_lib}/libtorch_cuda.so")
    message(FATAL_ERROR "${qlora_torch_lib} has no libtorch_cuda.so. Run scripts/bootstrap.sh --cuda.")
  endif()
  # --no-as-needed: the CUDA backend registers itself when it is loaded.
  target_link_libraries(qlora::torch INTERFACE
    "-Wl,--no-as-needed,${qlora_torch_lib}/libtorch_cuda.so,${qlora_torch_lib}/libc10_cuda.so,--as-needed" CUDA::cudart)
  target_compile_definitions(qlora::torch INTERFACE QLORA_CUDA=1)
endif()

# Apache Arrow: headers and libraries of the unpacked PyPI wheel, of which nothing of Python's is used. Its libraries are built with
# the C++11 ABI of libstdc++, as LibTorch is, export Arrow's names alone, and find each other by their own RPATH.
if(QLORA_PARQUET)
  file(GLOB qlora_arrow_library "${QLORA_ARROW_ROOT}/pyarrow/libarrow.so.*")
  file(GLOB qlora_parquet_library "${QLORA_ARROW_ROOT}/pyarrow/libparquet.so.*")
  if(NOT qlora_arrow_library OR NOT qlora_parquet_library)
    message(FATAL_ERROR "Apache Arrow is not in '${QLORA_ARROW_ROOT}'. Run scripts/bootstrap.sh, set QLORA_ARROW_ROOT to a folder "
      "that holds pyarrow/ as the PyPI wheel has it, or set QLORA_PARQUET=OFF for a program that reads no Parquet files.")
  endif()
  foreach(library arrow parquet)
    add_library(qlora::${library} SHARED IMPORTED GLOBAL)
    set_target_properties(qlora::${library} PROPERTIES IMPORTED_LOCATION "${qlora_${library}_library}")
  endforeach()
  set_target_properties(qlora::arrow PROPERTIES INTERFACE_COMPILE_DEFINITIONS QLORA_PARQUET=1)
  if(EXISTS "${QLORA_ARROW_ROOT}/pyarrow/include")  # which an installed package lacks: programs that use it only link
    set_target_properties(qlora::arrow PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${QLORA_ARROW_ROOT}/pyarrow/include")
  endif()
  set_target_properties(qlora::parquet PROPERTIES INTERFACE_LINK_LIBRARIES qlora::arrow)
endif()
