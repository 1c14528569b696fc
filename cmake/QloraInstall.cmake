# cmake --install: the program, and a package for find_package(qlora). It offers qlora::qlora (all) and one
# target per folder. The component `libtorch` puts LibTorch and Arrow beside them; an install without that component
# (cmake --install build --component qlora) goes on using QLORA_TORCH_ROOT.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/qlora")
set(libtorch_dir "${CMAKE_INSTALL_LIBDIR}/qlora/libtorch")
set(arrow_dir "${CMAKE_INSTALL_LIBDIR}/qlora/arrow")
set(folders base io quant data lora optim model distributed trainer export recipes)

add_library(qlora_all INTERFACE)
set_target_properties(qlora_all PROPERTIES EXPORT_NAME qlora)
set(targets qlora_all)
foreach(folder IN LISTS folders)
  list(APPEND targets qlora_${folder})
  target_link_libraries(qlora_all INTERFACE qlora_${folder})
  install(DIRECTORY "${CMAKE_SOURCE_DIR}/${folder}/" DESTINATION "include/qlora/${folder}" COMPONENT qlora
    FILES_MATCHING PATTERN "*.h" PATTERN "*.cuh" PATTERN "gloo_headers" EXCLUDE)
endforeach()
install(TARGETS ${targets} EXPORT qloraTargets ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}/qlora" COMPONENT qlora)
install(EXPORT qloraTargets NAMESPACE qlora:: DESTINATION "${package_dir}" COMPONENT qlora)

configure_package_config_file("${CMAKE_SOURCE_DIR}/cmake/qloraConfig.cmake.in"
  "${CMAKE_BINARY_DIR}/qloraConfig.cmake" INSTALL_DESTINATION "${package_dir}" PATH_VARS libtorch_dir arrow_dir)
write_basic_package_version_file("${CMAKE_BINARY_DIR}/qloraConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_BINARY_DIR}/qloraConfig.cmake" "${CMAKE_BINARY_DIR}/qloraConfigVersion.cmake"
  "${CMAKE_SOURCE_DIR}/cmake/QloraDependencies.cmake" DESTINATION "${package_dir}" COMPONENT qlora)

if(TARGET qlora)
  # Looks for the installed LibTorch and Arrow first, then for those it was built with.
  set(rpath "$ORIGIN/../${libtorch_dir}/torch/lib" "${QLORA_TORCH_ROOT}/torch/lib")
  if(QLORA_PARQUET)
    list(APPEND rpath "$ORIGIN/../${arrow_dir}/pyarrow" "${QLORA_ARROW_ROOT}/pyarrow")
  endif()
  set_target_properties(qlora PROPERTIES
    INSTALL_RPATH "${rpath}"
    INSTALL_RPATH_USE_LINK_PATH ON)
  install(TARGETS qlora RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}" COMPONENT qlora)
  if(NOT QLORA_SANITIZE)
    include(ShellFiles)
  endif()
endif()
install(FILES "${CMAKE_SOURCE_DIR}/recipes/quickstart.yaml" DESTINATION "${CMAKE_INSTALL_DATADIR}/qlora/recipes" COMPONENT qlora)
install(DIRECTORY "${CMAKE_SOURCE_DIR}/recipes/ready" DESTINATION "${CMAKE_INSTALL_DATADIR}/qlora/recipes" COMPONENT qlora)
install(DIRECTORY "${QLORA_TORCH_ROOT}/" DESTINATION "${libtorch_dir}" USE_SOURCE_PERMISSIONS COMPONENT libtorch)
if(QLORA_PARQUET)
  install(FILES ${qlora_arrow_library} ${qlora_parquet_library} DESTINATION "${arrow_dir}/pyarrow" COMPONENT libtorch)
endif()
