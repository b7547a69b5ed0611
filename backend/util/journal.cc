#include "backend/util/journal.h"

#include <endian.h>
#include <fmt/format.h>
#include <spdlog/sinks/base_sink.h>
#include <sys/socket.h>
#include <syslog.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <string_view>

#include "backend/util/error.h"
#include "backend/util/socket.h"
#include "backend/util/unique_fd.h"

namespace sbxfs {
namespace {

// More would not fit into a datagram.
constexpr std::size_t kLongest = 32 * 1024;

// Of a value with line breaks the length is told before.
std::string Field(std::string_view name, std::string_view value) {
  if (value.find('\n') == value.npos)
    return fmt::format("{}={}\n", name, value);
  const uint64_t length = htole64(value.size());
  std::string field(name);
  field += '\n';
  field.append(reinterpret_cast<const char*>(&length), sizeof length);
  field.append(value);
  return field + '\n';
}

int Priority(spdlog::level::level_enum level) {
  switch (level) {
    case spdlog::level::critical:
      return LOG_CRIT;
    case spdlog::level::err:
      return LOG_ERR;
    case spdlog::level::warn:
      return LOG_WARNING;
    case spdlog::level::info:
      return LOG_INFO;
    default:
      return LOG_DEBUG;
  }
}

class Sink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  Sink(UniqueFd socket, std::string fields)
      : socket_(std::move(socket)), fields_(std::move(fields)) {}

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    const std::string_view text(message.payload.data(), message.payload.size());
    const std::string record =
        fields_ + Field("PRIORITY", std::to_string(Priority(message.level))) +
        Field("MESSAGE", text.substr(0, kLongest));
    (void)send(socket_.Get(), record.data(), record.size(), MSG_NOSIGNAL);
  }
  void flush_() override {}

  const UniqueFd socket_;
  const std::string fields_;
};

}  // namespace

spdlog::sink_ptr JournalSink(const std::map<std::string, std::string>& fields,
                             const std::string& address) {
  UniqueFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const sockaddr_un to = UnixAddress(address);
  if (connect(fd.Get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) !=
      0) {
    const int error = errno;
    throw Error(error, fmt::format("Cannot log to 'journal': {}: {}; log to "
                                   "syslog or a file",
                                   address, std::strerror(error)));
  }
  std::string text = Field("SYSLOG_IDENTIFIER", "sbxfs");
  for (const auto& [name, value] : fields) {
    if (!value.empty()) text += Field(name, value);
  }
  return std::make_shared<Sink>(std::move(fd), std::move(text));
}

}  // namespace sbxfs
