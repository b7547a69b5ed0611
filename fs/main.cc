#include <cstdio>

#include "backend/util/exit_code.h"

int main() {
  std::fputs("sbxfs: Cannot mount: not built yet\n", stderr);
  return static_cast<int>(sbxfs::ExitCode::kBug);
}
