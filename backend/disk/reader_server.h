#ifndef SBXFS_BACKEND_DISK_READER_SERVER_H_
#define SBXFS_BACKEND_DISK_READER_SERVER_H_

namespace sbxfs {

// The name the process goes by; as argv[0] it makes main() call RunDiskReader.
inline constexpr char kDiskReader[] = "sbxfs-disk";

// The number of its socket.
inline constexpr int kDiskReaderSocket = 3;

// Answers the questions that come over a socket until its other end is closed.
void ServeDisk(int fd);

// The whole life of the process that reads a disk: what a guest wrote to it is
// parsed by a library in C, so that this one has nothing but that socket, by
// which it gets bytes and gives answers. Returns its exit status.
int RunDiskReader();

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_DISK_READER_SERVER_H_
