# What Debian's policy wants besides, in the tree that becomes the package.
# A release of the sources is none.
if(NOT CPACK_GENERATOR STREQUAL "DEB")
  return()
endif()
set(root ${CPACK_TEMPORARY_DIRECTORY})
set(doc ${root}/usr/share/doc/sbxfs)
set(here ${CPACK_SBXFS_SOURCE}/mount-helper/package)

file(READ ${CPACK_SBXFS_SOURCE}/LICENSE text)
string(REGEX MATCH "Copyright \\(c\\) ([^\n]*)" holder "${text}")
set(holder ${CMAKE_MATCH_1})
string(REGEX REPLACE "^.*Copyright [^\n]*\n\n" "" text "${text}")
string(REGEX REPLACE "\n\n" "\n.\n" text "${text}")
string(STRIP "${text}" text)
string(REPLACE "\n" "\n " text "${text}")
file(WRITE ${doc}/copyright
"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: sbxfs

Files: *
Copyright: ${holder}
License: Expat
 ${text}
")
configure_file(${here}/changelog ${doc}/changelog.Debian COPYONLY)
file(GLOB pages ${root}/usr/share/man/*/*)
execute_process(COMMAND gzip -9n ${pages} ${doc}/changelog.Debian
  COMMAND_ERROR_IS_FATAL ANY)
file(COPY ${here}/overrides DESTINATION ${root}/usr/share/lintian)
