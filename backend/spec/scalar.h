#ifndef SBXFS_BACKEND_SPEC_SCALAR_H_
#define SBXFS_BACKEND_SPEC_SCALAR_H_

#include <string>
#include <string_view>

#include "backend/spec/keys.h"

namespace sbxfs {

// `text` in double quotes, escaped.
[[nodiscard]] std::string QuoteScalar(std::string_view text);

// `value` as YAML for a key of `type`, in quotes where it needs them. `flow`:
// it stands in brackets. `quote`: the quote of the value it replaces, kept
// where it fits; '\0' for none.
[[nodiscard]] std::string FormatScalar(std::string_view value, ValueType type,
                                       bool flow, char quote);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SPEC_SCALAR_H_
