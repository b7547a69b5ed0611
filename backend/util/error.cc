#include "backend/util/error.h"

#include <cerrno>
#include <exception>
#include <new>

namespace sbxfs {

Error Error::Of(std::string_view what) const {
  for (const int below : {EIO, EHOSTDOWN, ENOMEM, ENOSPC, ETIMEDOUT}) {
    if (Errno() == below && !sentence_.starts_with(what)) return As(what);
  }
  return *this;
}

Error CurrentError() noexcept {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return Error(ENOMEM, "Cannot finish the request: out of memory");
  } catch (const std::exception& error) {
    return Error(EIO, std::string("Cannot finish the request: ") +
                          error.what() + " (an error in sbxfs; see the log)");
  } catch (...) {
    return Error(EIO,
                 "Cannot finish the request: an error in sbxfs; see the log");
  }
}

}  // namespace sbxfs
