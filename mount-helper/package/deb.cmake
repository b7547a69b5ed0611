# What `cpack -G DEB` makes a package of, in the build directory.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME sbxfs)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "The sbxfs authors <sbxfs@sbxfs.invalid>"
  CACHE STRING "The maintainer of packages")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "virtual machines as directories")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
"sbxfs mounts a libvirt hypervisor as a file system in which every directory
is an isolated Linux machine: mkdir makes one, echo start boots it, ssh gets
in, rmdir takes it away. It has snapshots, clones, mounts of directories, port
forwards and limits of whom a guest may reach, all as files.")
set(CPACK_INSTALL_CMAKE_PROJECTS "${CMAKE_BINARY_DIR};sbxfs;sbxfs;/")
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE
  OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# The hypervisor can be on another machine, hence a recommendation, which apt
# follows: all of the sections run and image of mount-helper/packages, that no
# program here fails without.
set(depends fuse3 openssh-client procps)
file(STRINGS ${PROJECT_SOURCE_DIR}/mount-helper/packages lines)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
  ${PROJECT_SOURCE_DIR}/mount-helper/packages)
set(section)
set(recommends)
foreach(line IN LISTS lines)
  if(line MATCHES "^# ([a-z]+):")
    set(section ${CMAKE_MATCH_1})
  elseif(NOT line MATCHES "^#" AND section MATCHES "^(run|image)$" AND
      NOT line IN_LIST depends)
    list(APPEND recommends ${line})
  endif()
endforeach()
list(JOIN depends ", " CPACK_DEBIAN_PACKAGE_DEPENDS)
list(JOIN recommends ", " CPACK_DEBIAN_PACKAGE_RECOMMENDS)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_LIST_DIR}/postinst)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_LIST_DIR}/debian.cmake)
set(CPACK_SBXFS_SOURCE ${PROJECT_SOURCE_DIR})
# A release: `cpack --config CPackSourceConfig.cmake`, of what git has.
set(CPACK_SOURCE_GENERATOR TXZ)
set(CPACK_SOURCE_PACKAGE_FILE_NAME sbxfs-${PROJECT_VERSION})
set(CPACK_SOURCE_IGNORE_FILES "${PROJECT_SOURCE_DIR}/build[^/]*/"
  "${PROJECT_SOURCE_DIR}/\\\\.git(/|$)" __pycache__ "/[.]cache/"
  "[.](qcow2|iso|profraw|swp)$" "~$")
include(CPack)
