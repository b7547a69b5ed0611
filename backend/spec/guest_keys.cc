// The keys of what is in the guest: its login, scripts, environment, names.
#include <array>
#include <cctype>

#include "backend/spec/readers.h"
#include "backend/spec/value.h"
#include "backend/util/text.h"
#include "backend/util/utf8.h"

namespace sbxfs {
namespace {

using enum ValueType;

constexpr char kGuestPath[] =
    "an absolute path in the guest, of letters, digits and ._-+@/";

bool IsGuestPath(std::string_view text) {
  return text.starts_with('/') && Consists(text, "/._-+@");
}

// A login or group, or two with a colon, as chown takes them.
bool IsOwner(std::string_view text) {
  return !text.empty() && Consists(text, "._-:") && text[0] != '-';
}

// What Lima has for a `file:`, which it would have read when it starts.
[[noreturn]] void RefuseFile(const Value& value, std::string_view in) {
  throw value.Fault(fmt::format(
      "names a file, which sbxfs does not read; put its text under {}", in));
}

// A step as it is written.
struct Step {
  ProvisionStep step;
  std::string mode = "system";
  bool has_content = false, has_data = false, has_skip = false;
};

constexpr std::string_view kModes[] = {"system", "user", "boot", "dependency",
                                       "data"};

void ReadMode(const Value& value, Step& step) {
  step.mode = value.Text();
  if (step.mode == "ansible") {
    throw value.Fault(
        "is 'ansible', which sbxfs has not; run ansible-playbook in a system "
        "script");
  }
  if (step.mode == "yq") {
    throw value.Fault(
        "is 'yq', which sbxfs has not; edit the file in a script");
  }
  step.mode = value.OneOf(kModes);
  const auto at = std::find(std::begin(kModes), std::end(kModes), step.mode);
  step.step.mode = static_cast<ProvisionStep::Mode>(at - std::begin(kModes));
}

std::string ReadScript(const Value& value) {
  std::string script = value.Template("a script", TemplateSide::kGuest);
  if (script.empty()) throw value.Wrong("a script");
  return script;
}

constexpr Key<Step> kStepKeys[] = {
    {"content", kText,
     [](const Value& v, Step& step) {
       step.has_data = true;
       step.step.content = v.Template("a text", TemplateSide::kGuest);
     }},
    {"file", kText, [](const Value& v, Step&) { RefuseFile(v, "script"); }},
    {"mode", kText, ReadMode},
    {"overwrite", kPlain,
     [](const Value& v, Step& step) {
       step.has_data = true;
       step.step.overwrite = v.Bool();
     }},
    {"owner", kText,
     [](const Value& v, Step& step) {
       constexpr char kAllowed[] = "an owner as chown takes it";
       step.has_data = true;
       step.step.owner = v.Template(kAllowed, TemplateSide::kGuest);
       if (!IsOwner(step.step.owner) &&
           step.step.owner.find("{{") == std::string::npos) {
         throw v.Wrong(kAllowed);
       }
     }},
    {"path", kText,
     [](const Value& v, Step& step) {
       constexpr char kAllowed[] = "an absolute path in the guest";
       step.has_data = true;
       step.step.path = v.Template(kAllowed, TemplateSide::kGuest);
       if (!IsPlainLine(step.step.path) ||
           (!step.step.path.starts_with('/') &&
            !step.step.path.starts_with("{{"))) {
         throw v.Wrong(kAllowed);
       }
     }},
    {"permissions", kText,
     [](const Value& v, Step& step) {
       constexpr char kAllowed[] = "a mode in octal digits, as in '644'";
       step.has_data = true;
       step.step.permissions = v.Text(kAllowed);
       const std::string& mode = step.step.permissions;
       if (mode.size() < 3 || mode.size() > 4 ||
           mode.find_first_not_of("01234567") != std::string::npos) {
         throw v.Wrong(kAllowed);
       }
     }},
    {"playbook", kText, [](const Value& v, Step&) { RefuseFile(v, "script"); }},
    {"script", kText,
     [](const Value& v, Step& step) { step.step.script = ReadScript(v); }},
    {"skipDefaultDependencyResolution", kPlain,
     [](const Value& v, Step& step) {
       (void)v.Bool();
       step.has_skip = true;
     }},
};

ProvisionStep ReadStep(const Value& value) {
  Step step;
  ReadMap(value, kStepKeys, step);
  ProvisionStep& done = step.step;
  const bool data = done.mode == ProvisionStep::Mode::kData;
  if (data && done.path.empty()) {
    throw value.Fault("has mode data, but no path; add one");
  }
  if (data && !done.script.empty()) {
    throw value.Fault("has mode data and a script; put the text under content");
  }
  if (!data && step.has_data) {
    throw value.Fault(fmt::format(
        "has mode {}, but content, overwrite, owner, path and permissions are "
        "of mode data; set the mode, or remove them",
        step.mode));
  }
  if (!data && done.script.empty()) {
    throw value.Fault("has no script; add one");
  }
  if (step.has_skip && done.mode != ProvisionStep::Mode::kDependency) {
    throw value.Fault(
        fmt::format("has mode {}, but "
                    "skipDefaultDependencyResolution is of mode "
                    "dependency; remove it",
                    step.mode));
  }
  if (data && done.owner.empty()) done.owner = "root:root";
  if (data && done.permissions.empty()) done.permissions = "644";
  return done;
}

constexpr Key<Probe> kProbeKeys[] = {
    {"description", kText,
     [](const Value& v, Probe& probe) { probe.description = v.Prose(); }},
    {"file", kText, [](const Value& v, Probe&) { RefuseFile(v, "script"); }},
    {"hint", kText,
     [](const Value& v, Probe& probe) {
       (void)v.Template("a text", TemplateSide::kGuest);
       probe.hint = v.Prose();
     }},
    {"mode", kText,
     [](const Value& v, Probe&) {
       constexpr std::string_view kProbeModes[] = {"readiness"};
       (void)v.OneOf(kProbeModes);
     }},
    {"script", kText,
     [](const Value& v, Probe& probe) {
       probe.script = ReadScript(v);
       if (!probe.script.starts_with("#!")) {
         throw v.Fault(
             "does not begin with '#!'; add a line such as "
             "'#!/bin/bash'");
       }
     }},
};

bool IsHostName(std::string_view name) {
  return !name.empty() && name.size() <= 253 && Consists(name, ".-_") &&
         Consists(name.substr(0, 1), "_");
}

// Reads a map of texts: `good_name` says which names there may be.
void ReadTexts(const Value& value, bool (*good_name)(std::string_view),
               std::string_view names, std::string_view allowed,
               std::map<std::string, std::string>& texts) {
  if (!value.IsMap()) throw value.Wrong(fmt::format("a map of {}", names));
  for (const YamlEntry& entry : value.Node().entries) {
    const Value one = value.Child(entry.key.value, entry.value);
    if (!good_name(entry.key.value)) {
      throw YamlError(
          entry.key,
          fmt::format("'{}' in {} is not good; it must be one of "
                      "{}",
                      ForSentence(entry.key.value), value.Key(), names));
    }
    std::string text;
    if (entry.value.kind != YamlNode::Kind::kNull) text = one.Text(allowed);
    if (FindNotPlain(text) != std::string::npos ||
        text.find_first_of("\r\n") != std::string::npos) {
      throw one.Wrong(allowed);
    }
    texts[entry.key.value] = std::move(text);
  }
}

constexpr Key<Spec> kCaKeys[] = {
    {"certs", kText,
     [](const Value& value, Spec& spec) {
       spec.ca_certs.clear();
       for (const Value& item : value.Items("a list of certificates")) {
         std::string pem = item.Text("a certificate in PEM");
         if (pem.find("-----BEGIN CERTIFICATE-----") == std::string::npos ||
             pem.find("-----END CERTIFICATE-----") == std::string::npos) {
           throw item.Wrong("a certificate in PEM");
         }
         spec.ca_certs.push_back(std::move(pem));
       }
     }},
    {"files", kText,
     [](const Value& value, Spec&) {
       const auto items = value.Items("a list of files");
       if (!items.empty()) RefuseFile(items[0], "caCerts.certs");
     }},
    {"removeDefaults", kPlain,
     [](const Value& value, Spec& spec) {
       spec.remove_default_ca_certs = value.Bool();
     }},
};

}  // namespace

void ReadUserName(const Value& value, Spec& spec) {
  constexpr char kAllowed[] =
      "a login: a small letter or _, then small letters, digits, - and _, 32 "
      "at most";
  std::string user = value.Text(kAllowed);
  if (!IsLogin(user)) throw value.Wrong(kAllowed);
  spec.user = std::move(user);
}

void ReadUserComment(const Value& value, Spec& spec) {
  constexpr char kAllowed[] = "one line without ':'";
  std::string comment = value.Text(kAllowed);
  // A field of /etc/passwd.
  if (!IsPlainLine(comment) || comment.find(':') != std::string::npos) {
    throw value.Wrong(kAllowed);
  }
  spec.comment = std::move(comment);
}

void ReadUserHome(const Value& value, Spec& spec) {
  const std::string home = value.Template(kGuestPath, TemplateSide::kGuest);
  // It cannot stand on itself.
  const auto blank = [](std::string_view name) {
    return name == "Home" ? std::nullopt : std::optional<std::string>("x");
  };
  if (!IsGuestPath(ExpandTemplate(home, blank))) throw value.Wrong(kGuestPath);
  spec.home = home;
}

void ReadUserShell(const Value& value, Spec& spec) {
  std::string path = value.Text(kGuestPath);
  if (!IsGuestPath(path)) throw value.Wrong(kGuestPath);
  spec.shell = std::move(path);
}

void ReadProvision(const Value& value, Spec& spec) {
  spec.provision.clear();
  for (const Value& item : value.Items("a list of steps, each with mode and "
                                       "script")) {
    spec.provision.push_back(ReadStep(item));
  }
}

void ReadProbes(const Value& value, Spec& spec) {
  spec.probes.clear();
  for (const Value& item : value.Items("a list of probes, each with its "
                                       "script")) {
    Probe probe;
    ReadMap(item, kProbeKeys, probe);
    if (probe.script.empty()) throw item.Fault("has no script; add one");
    spec.probes.push_back(std::move(probe));
  }
  // As Lima calls them.
  for (std::size_t i = 0; i < spec.probes.size(); ++i) {
    std::string& description = spec.probes[i].description;
    if (description.empty()) {
      description = fmt::format("user probe {}/{}", i + 1, spec.probes.size());
    }
  }
}

void ReadEnv(const Value& value, Spec& spec) {
  spec.env.clear();
  ReadTexts(value, IsVariable, "names of letters, digits and _",
            "one line of text", spec.env);
}

void ReadParam(const Value& value, Spec& spec) {
  spec.param.clear();
  const auto good = [](std::string_view name) {
    return IsVariable(name) && name[0] != '_';
  };
  ReadTexts(value, good,
            "names of letters, digits and _, beginning with a "
            "letter",
            "one line of text", spec.param);
}

void ReadHosts(const Value& value, Spec& spec) {
  spec.hosts.clear();
  constexpr char kAllowed[] = "an IP address or a host's name";
  ReadTexts(value, IsHostName, "host names", kAllowed, spec.hosts);
  for (const YamlEntry& entry : value.Node().entries) {
    const std::string& to = spec.hosts[entry.key.value];
    if (!IsAddress(to) && !IsHostName(to)) {
      throw value.Child(entry.key.value, entry.value).Wrong(kAllowed);
    }
  }
}

void ReadDns(const Value& value, Spec& spec) {
  spec.dns.clear();
  for (const Value& item : value.Items("a list of IP addresses")) {
    spec.dns.push_back(item.Text("an IP address"));
    if (!IsAddress(spec.dns.back())) throw item.Wrong("an IP address");
  }
}

void ReadCaCerts(const Value& value, Spec& spec) {
  ReadMap(value, kCaKeys, spec);
}

void ReadTimezone(const Value& value, Spec& spec) {
  constexpr char kAllowed[] = "a zone's name, as in 'Europe/Lisbon'";
  std::string zone = value.Text(kAllowed);
  if (!Consists(zone, "/_+-") || zone.starts_with('/')) {
    throw value.Wrong(kAllowed);
  }
  spec.timezone = std::move(zone);
}

}  // namespace sbxfs
