#ifndef SBXFS_BACKEND_SPEC_READERS_H_
#define SBXFS_BACKEND_SPEC_READERS_H_

#include "backend/spec/spec.h"
#include "backend/spec/value.h"

namespace sbxfs {

// The parts of the table of keys; see keys.cc.

void ReadImages(const Value& value, Spec& spec);
void ReadArch(const Value& value, Spec& spec);
void ReadCpuType(const Value& value, Spec& spec);
void ReadVmOpts(const Value& value, Spec& spec);

void ReadMounts(const Value& value, Spec& spec);
void ReadMountType(const Value& value, Spec& spec);
void ReadMountTypesUnsupported(const Value& value, Spec& spec);
void ReadPortForwards(const Value& value, Spec& spec);
void ReadNetworks(const Value& value, Spec& spec);
void ReadEgress(const Value& value, Spec& spec);
void ReadDisks(const Value& value, Spec& spec);

void ReadUserName(const Value& value, Spec& spec);
void ReadUserComment(const Value& value, Spec& spec);
void ReadUserHome(const Value& value, Spec& spec);
void ReadUserShell(const Value& value, Spec& spec);
void ReadProvision(const Value& value, Spec& spec);
void ReadProbes(const Value& value, Spec& spec);
void ReadEnv(const Value& value, Spec& spec);
void ReadParam(const Value& value, Spec& spec);
void ReadHosts(const Value& value, Spec& spec);
void ReadDns(const Value& value, Spec& spec);
void ReadCaCerts(const Value& value, Spec& spec);
void ReadTimezone(const Value& value, Spec& spec);

// A file as Lima names it, for keys that have no effect here.
void CheckFiles(const Value& value, Spec& spec);

}  // namespace sbxfs

#endif  // SBXFS_BACKEND_SPEC_READERS_H_
