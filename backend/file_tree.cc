#include "backend/file_tree.h"

#include <fmt/format.h>

#include <cerrno>

#include "backend/util/error.h"

namespace sbxfs {
namespace {

[[noreturn]] void RefuseChange(const std::string& path) {
  throw Error(EROFS, fmt::format("Cannot change '{}': it is on a disk at rest, "
                                 "which is shown read-only; start the sandbox "
                                 "to change its files",
                                 path));
}

}  // namespace

void FileTree::Opened::Write(uint64_t, const std::string&) {
  throw Error(EBADF, "Cannot write: the file was opened for reading");
}

FileFacts FileTree::Opened::Look() {
  throw Error(EBADF, "Cannot look at the file: its name alone can be asked");
}

void FileTree::Opened::Resize(uint64_t) {
  throw Error(EBADF, "Cannot cut: the file was opened for reading");
}

void FileTree::Set(const std::string& path, const FileChanges&) {
  RefuseChange(path);
}
void FileTree::MakeDir(const std::string& path, mode_t) { RefuseChange(path); }
void FileTree::MakeLink(const std::string& path, const std::string&) {
  RefuseChange(path);
}
void FileTree::MakeName(const std::string& path, const std::string&) {
  RefuseChange(path);
}
void FileTree::Remove(const std::string& path) { RefuseChange(path); }
void FileTree::RemoveDir(const std::string& path) { RefuseChange(path); }
void FileTree::Rename(const std::string& path, const std::string&) {
  RefuseChange(path);
}

}  // namespace sbxfs
