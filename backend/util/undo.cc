#include "backend/util/undo.h"

#include <cerrno>

#include "backend/util/error.h"
#include "backend/util/log.h"

namespace sbxfs {

Undo::~Undo() {
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
    try {
      (*step)();
    } catch (const Error& error) {
      // ENOENT: the step itself had not been reached.
      if (error.Errno() != ENOENT) {
        spdlog::error("Undoing: {}", error.Sentence());
      }
    }
  }
}

}  // namespace sbxfs
