# qlora_suites(PROGRAM FOLDER): adds each suite of a GoogleTest program as one test, FOLDER.SUITE. A process for each of
# three thousand tests would take more time to start than the tests to run: to load LibTorch takes 0.3 s. A suite whose name ends in Gpu
# needs a GPU: it has the label gpu, and is reported as skipped where there is none.
#
# ctest asks the program for its suites (cmake/ListSuites.cmake), so that a build waits for no program to run.
function(qlora_suites program folder)
  set(asks "${CMAKE_CURRENT_BINARY_DIR}/${program}_suites.cmake")
  file(GENERATE OUTPUT "${asks}" CONTENT "set(program \"$<TARGET_FILE:${program}>\")
set(folder \"${folder}\")
include(\"${CMAKE_SOURCE_DIR}/cmake/ListSuites.cmake\")
")
  set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES "${asks}")
endfunction()
