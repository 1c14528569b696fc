# Completion for shells and manual pages, made by the program once it is linked, and installed where shells and man look.
set(shell_files "${CMAKE_BINARY_DIR}/share")
add_custom_command(OUTPUT "${CMAKE_BINARY_DIR}/shell_files.stamp"
  COMMAND ${CMAKE_COMMAND} -E rm -rf "${shell_files}"
  COMMAND qlora completion bash --output "${shell_files}/bash-completion/completions/qlora"
  COMMAND qlora completion zsh --output "${shell_files}/zsh/site-functions/_qlora"
  COMMAND qlora completion fish --output "${shell_files}/fish/vendor_completions.d/qlora.fish"
  COMMAND qlora man --output "${shell_files}/man/man1"
  COMMAND ${CMAKE_COMMAND} -E touch "${CMAKE_BINARY_DIR}/shell_files.stamp"
  DEPENDS qlora COMMENT "Writing completions and manual pages" VERBATIM)
add_custom_target(qlora_shell_files ALL DEPENDS "${CMAKE_BINARY_DIR}/shell_files.stamp")
install(DIRECTORY "${shell_files}/" DESTINATION "${CMAKE_INSTALL_DATADIR}" COMPONENT qlora)
