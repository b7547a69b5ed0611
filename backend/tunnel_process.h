#ifndef SBXFS_BACKEND_TUNNEL_PROCESS_H_
#define SBXFS_BACKEND_TUNNEL_PROCESS_H_

#include <filesystem>
#include <string>
#include <vector>

namespace sbxfs {

// What an ssh that was given ForwardingWords says on stderr once it has logged
// in and asked for all that it is to forward: the LocalCommand of ssh_config(5)
// comes after that.
inline constexpr char kLoggedIn[] = "sbxfs: logged in";

// Options of an ssh that forwards, or ends when it is refused that.
[[nodiscard]] std::vector<std::string> ForwardingWords();

// Starts a program in a session of its own, nobody's child, which holds the
// lock of `slip` as its stdin; in the slip are its pid and `digest`, as
// ReadSlip (mount/server.h) reads them. Its words go to `slip`.log. Throws
// Error; EEXIST when one has the lock.
void StartTunnelProcess(const std::filesystem::path& slip,
                        const std::string& digest,
                        std::vector<std::string> words);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_TUNNEL_PROCESS_H_
