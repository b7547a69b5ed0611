# Where everything goes, and `uninstall`. All of it is one component, by whose
# name cpack installs it: then the list of what `cmake --install` has put
# somewhere stays as it is.
set(CMAKE_INSTALL_DEFAULT_COMPONENT_NAME sbxfs)

# The uppermost directories that are not there yet, for `uninstall`.
set(zsh_completions share/zsh/site-functions)
if(EXISTS /etc/debian_version)
  set(zsh_completions share/zsh/vendor-completions)
endif()
set(places ${CMAKE_INSTALL_BINDIR} ${CMAKE_INSTALL_SBINDIR}
  ${CMAKE_INSTALL_DATADIR}/sbxfs ${CMAKE_INSTALL_MANDIR}/man1
  ${CMAKE_INSTALL_MANDIR}/man5 ${CMAKE_INSTALL_MANDIR}/man7
  ${CMAKE_INSTALL_MANDIR}/man8
  ${CMAKE_INSTALL_DOCDIR} lib/systemd/system lib/systemd/user
  share/bash-completion/completions share/fish/vendor_completions.d
  ${zsh_completions})
install(CODE "set(places \"${places}\")\nset(build \"${CMAKE_BINARY_DIR}\")")
install(CODE [[
  if(NOT CMAKE_INSTALL_COMPONENT)
    foreach(place IN LISTS places)
      set(made)
      get_filename_component(above "${place}" ABSOLUTE
        BASE_DIR "${CMAKE_INSTALL_PREFIX}")
      while(NOT EXISTS "$ENV{DESTDIR}${above}" AND NOT above STREQUAL "/")
        set(made "${above}")
        get_filename_component(above "${above}" DIRECTORY)
      endwhile()
      if(made)
        file(APPEND "${build}/install_directories.txt" "${made}\n")
      endif()
    endforeach()
  endif()
]])

install(TARGETS sbxfs DESTINATION ${CMAKE_INSTALL_BINDIR})
# mount(8) looks for helpers in /sbin alone, whatever the prefix is called.
install(TARGETS mount.sbxfs DESTINATION ${CMAKE_INSTALL_SBINDIR})
install(PROGRAMS backend/guest/sbxfs-build-image mount-helper/sandbox
  DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY backend/guest/overlay
  DESTINATION ${CMAKE_INSTALL_DATADIR}/sbxfs/guest)
file(GLOB guest_lists backend/guest/packages backend/guest/masked-*)
install(FILES ${guest_lists} DESTINATION ${CMAKE_INSTALL_DATADIR}/sbxfs/guest)
install(FILES man/sandbox.1 man/sbxfs-build-image.1
  DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES man/sbxfs.5 DESTINATION ${CMAKE_INSTALL_MANDIR}/man5)
install(FILES man/sbxfs-agent.7 DESTINATION ${CMAKE_INSTALL_MANDIR}/man7)
install(FILES man/sbxfs.8 man/mount.sbxfs.8
  DESTINATION ${CMAKE_INSTALL_MANDIR}/man8)
install(DIRECTORY mount-helper/examples/
  DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
# systemd looks there, and in the same below /usr/local.
install(FILES mount-helper/systemd/system/sbxfs@.service
  mount-helper/systemd/system/sbxfs-confined@.service
  DESTINATION lib/systemd/system)
install(FILES mount-helper/systemd/sysusers.conf RENAME sbxfs.conf
  DESTINATION lib/sysusers.d)
install(FILES mount-helper/systemd/user/sbxfs@.service
  DESTINATION lib/systemd/user)
install(FILES mount-helper/completions/sbxfs.bash RENAME sbxfs
  DESTINATION share/bash-completion/completions)
install(FILES mount-helper/completions/sandbox.bash RENAME sandbox
  DESTINATION share/bash-completion/completions)
install(FILES mount-helper/completions/_sbxfs mount-helper/completions/_sandbox
  DESTINATION ${zsh_completions})
install(FILES mount-helper/completions/sbxfs.fish
  mount-helper/completions/sandbox.fish
  DESTINATION share/fish/vendor_completions.d)

add_custom_target(uninstall COMMAND ${CMAKE_COMMAND} -DBUILD=${CMAKE_BINARY_DIR}
  -P ${CMAKE_CURRENT_LIST_DIR}/uninstall.cmake VERBATIM)
