#include "tests/support/reach.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>

#include "backend/util/spawn.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

// Says its port once it listens.
constexpr char kServer[] = R"py(
import select, socket, sys
first = socket.create_server(('127.0.0.1', 0))
port = first.getsockname()[1]
streams = [first, socket.create_server(('::1', port), family=socket.AF_INET6)]
packets = []
for family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):
    one = socket.socket(family, socket.SOCK_DGRAM)
    one.bind((host, port))
    packets.append(one)
print(port, flush=True)
while True:
    for one in select.select(streams + packets, [], [])[0]:
        try:
            if one in streams:
                with one.accept()[0] as peer:
                    peer.sendall(b'here')
            else:
                one.sendto(b'here', one.recvfrom(100)[1])
        except OSError:  # it is the other's who went away
            pass
)py";

// Raw: an IPv4 packet of root's own making, a UDP one, past the routing table's
// and firewall's say.
constexpr char kProbe[] = R"py(
import socket, struct
port = {}
found, said = [], []
def attempt(name, ask):
    for _ in range(2):
        try:
            if ask():
                found.append(name)
                return
            said.append(name + ': something else answers')
        except OSError as error:
            said.append(name + ': ' + str(error))
def tcp(family, host):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(8)
        s.connect((host, port))
        return s.recv(10) == b'here'
def udp(family, host):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(8)
        s.sendto(b'?', (host, port))
        return s.recv(10) == b'here'
def raw():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear, \
         socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
        ear.bind(('192.168.5.15', 0))
        ear.settimeout(8)
        udp = struct.pack('!HHHH', ear.getsockname()[1], port, 9, 0) + b'?'
        ip = struct.pack('!BBHHHBBH4s4s', 69, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                         socket.inet_aton('192.168.5.15'),
                         socket.inet_aton('192.168.5.2'))
        s.sendto(ip + udp, ('192.168.5.2', 0))
        return ear.recv(10) == b'here'
attempt('tcp', lambda: tcp(socket.AF_INET, '192.168.5.2'))
attempt('udp', lambda: udp(socket.AF_INET, '192.168.5.2'))
attempt('tcp6', lambda: tcp(socket.AF_INET6, 'fec0::2'))
attempt('udp6', lambda: udp(socket.AF_INET6, 'fec0::2'))
attempt('raw', raw)
print('reached:', *found)
print(*said, sep='\n')
)py";

constexpr char kAsk[] = R"py(
import socket
with socket.create_connection(('127.0.0.1', 3128), 5) as s:
    s.sendall(b'CONNECT {}:{} HTTP/1.1\r\n\r\n')
    said = b''
    while more := s.recv(1000):
        said += more
head, _, body = said.decode().partition('\r\n\r\n')
print(head.splitlines()[0].removeprefix('HTTP/1.1 '), '|', body.strip())
)py";

}  // namespace

Answering::Answering() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  said_ = UniqueFd(ends[0]);
  UniqueFd to(ends[1]);
  const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  pid_ = Spawn({"python3", "-c", kServer}, null.Get(), to.Get(), STDERR_FILENO);
  to.Reset();
  std::string text;
  while (!text.ends_with('\n')) {
    char byte = 0;
    if (read(said_.Get(), &byte, 1) <= 0) {
      throw std::runtime_error("nobody answers on loopback");
    }
    text += byte;
  }
  port_ = std::stoi(text);
}

Answering::~Answering() {
  kill(pid_, SIGKILL);
  (void)AwaitExit(pid_);
}

std::string Answering::Probe() const {
  return "sudo python3 - <<'E'" + fmt::format(fmt::runtime(kProbe), port_) +
         "E\n";
}

std::string Answering::Ask(const std::string& host, int port) const {
  return "python3 - <<'E'" +
         fmt::format(fmt::runtime(kAsk), host, port == 0 ? port_ : port) +
         "E\n";
}

}  // namespace sbxfs
