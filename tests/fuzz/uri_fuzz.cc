// URIs of hypervisors, as a user or a file of several hypervisors has them.
#include "backend/libvirt_uri.h"
#include "backend/util/utf8.h"
#include "tests/fuzz/fuzz.h"

namespace sbxfs::fuzz {
namespace {

void CheckUri(std::string_view text) {
  LibvirtUri uri;
  if (!Try([&] { uri = LibvirtUri::Parse(text); })) return;
  const std::string once = uri.Text();
  LibvirtUri again;
  try {
    again = LibvirtUri::Parse(once);
  } catch (const Error& error) {
    Fail("a URI that is put together can be read", error.Sentence());
  }
  CheckSame(again.Text(), once, "a URI, put together again");
  // Nobody else is reached by it, and nothing else is asked for.
  CheckSame(again.driver, uri.driver, "a URI's driver");
  CheckSame(again.transport, uri.transport, "a URI's transport");
  CheckSame(again.user, uri.user, "a URI's user");
  CheckSame(again.host, uri.host, "a URI's host");
  CheckSame(again.path, uri.path, "a URI's path");
  Check(again.port == uri.port, "a URI's port", once);
  Check(again.parameters == uri.parameters, "a URI's parameters", once);
  Check(again.Local() == uri.Local() && again.BySsh() == uri.BySsh(),
        "a URI's place", once);
  uri.Set("no_tty", "1 &?=/%");
  CheckSame(LibvirtUri::Parse(uri.Text()).Parameter("no_tty"), "1 &?=/%",
            "a parameter that was set");
  uri.Drop("no_tty");
  CheckSame(uri.Parameter("no_tty"), "", "a parameter that was dropped");
}

}  // namespace
}  // namespace sbxfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  sbxfs::fuzz::CheckUri(sbxfs::fuzz::Text(data, size));
  return 0;
}
