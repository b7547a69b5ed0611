#ifndef SBXFS_BACKEND_SPEC_TEMPLATE_H_
#define SBXFS_BACKEND_SPEC_TEMPLATE_H_

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// The templates in config.yaml: of Go's, what Lima's files use. `{{.Name}}` and
// its like stand for a value, `{{"{{"}}` for a text, and `{{- … -}}` eats the
// blanks around it. What Lima does not take for a template ({{json .}}) stays.

namespace sbxfs {

// Where a text is used, and so whose User, Home and UID are meant.
enum class TemplateSide { kGuest, kHost, kMessage };

// What is wrong, as "'{{.Nmae}}', which …", or nothing. Adds the names of the
// params to `params`.
[[nodiscard]] std::string CheckTemplate(std::string_view text,
                                        TemplateSide side,
                                        std::vector<std::string>& params);

// `value` gives what "Name" or "Param.x" stand for; a template it gives nothing
// for stays as it is.
[[nodiscard]] std::string ExpandTemplate(
    std::string_view text,
    const std::function<std::optional<std::string>(std::string_view)>& value);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SPEC_TEMPLATE_H_
