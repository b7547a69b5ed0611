#include "backend/run_info.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdlib>

#include "backend/util/text.h"
#include "backend/util/utf8.h"
#include "backend/xml.h"

namespace sbxfs {
namespace {

constexpr char kRunElement[] = "run";

}  // namespace

bool IsSecretName(std::string_view name) {
  return !name.empty() && name.size() <= kLongestSecretName &&
         std::isdigit(static_cast<unsigned char>(name[0])) == 0 &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return c < 0x80 && (std::isalnum(c) != 0 || c == '_');
         });
}

std::string FormatRun(const RunInfo& run) {
  const XmlDoc doc = NewXml(kRunElement);
  xmlNode* node = xmlDocGetRootElement(doc.get());
  const auto set = [node](const char* name, const std::string& value) {
    SetXml(node, name, value);
  };
  set("started",
      fmt::to_string(std::chrono::duration_cast<std::chrono::nanoseconds>(
                         run.started.time_since_epoch())
                         .count()));
  set("ready", fmt::format("{:.1f}", run.ready_seconds));
  if (!run.failed.empty()) set("failed", run.failed);
  std::string secrets;
  for (const auto& name : run.secrets) {
    secrets += (secrets.empty() ? "" : " ") + name;
  }
  if (!secrets.empty()) set("secrets", secrets);
  if (run.becoming) {
    set("becoming", run.starter.empty() ? "yes" : run.starter);
  }
  if (run.settled) set("settled", "yes");
  if (run.disk != 0) set("disk", std::to_string(run.disk));
  return FormatXml(node);
}

RunInfo ParseRun(std::string_view xml) {
  RunInfo run;
  const XmlDoc doc = ParseXml(xml);
  const xmlNode* node = doc ? xmlDocGetRootElement(doc.get()) : nullptr;
  if (node != nullptr && XmlName(node) == "domain") {
    node = XmlChild(XmlChild(node, "metadata"), kRunElement);
  }
  if (node == nullptr) return run;
  const std::string ready = XmlAttribute(node, "ready");
  if (!ready.empty()) run.ready_seconds = std::strtod(ready.c_str(), nullptr);
  run.started =
      Time(std::chrono::duration_cast<Time::duration>(std::chrono::nanoseconds(
          std::strtoll(XmlAttribute(node, "started").c_str(), nullptr, 10))));
  run.failed = XmlAttribute(node, "failed");
  if (!IsPlainLine(run.failed)) run.failed.clear();
  run.starter = XmlAttribute(node, "becoming");
  run.becoming = !run.starter.empty();
  if (!IsPlainLine(run.starter)) run.starter.clear();
  run.settled = XmlAttribute(node, "settled") == "yes";
  run.disk = ParseNumber(XmlAttribute(node, "disk")).value_or(0);
  const std::string secrets = XmlAttribute(node, "secrets");
  for (const std::string_view name : Split(secrets, ' ')) {
    if (IsSecretName(name)) run.secrets.emplace(name);
  }
  return run;
}

}  // namespace sbxfs
