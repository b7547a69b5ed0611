#ifndef SBXFS_BACKEND_UTIL_JOURNAL_H_
#define SBXFS_BACKEND_UTIL_JOURNAL_H_

#include <spdlog/common.h>

#include <map>
#include <string>

namespace sbxfs {

inline constexpr char kJournal[] = "/run/systemd/journal/socket";

// Sends what is logged to systemd's journal by its own protocol, with a
// priority and `fields`, whose names are in capitals. One that cannot be sent
// is lost. Throws Error when nobody listens at `address`.
[[nodiscard]] spdlog::sink_ptr JournalSink(
    const std::map<std::string, std::string>& fields,
    const std::string& address = kJournal);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_UTIL_JOURNAL_H_
