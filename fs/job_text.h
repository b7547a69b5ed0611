#ifndef SBXFS_FS_JOB_TEXT_H_
#define SBXFS_FS_JOB_TEXT_H_

#include <string>

#include "fs/layout.h"

// The columns `show` and `store` of a job's files.

namespace sbxfs::show {

std::string JobCommand(const View& view);
std::string JobArgv(const View& view);
std::string JobEnv(const View& view);
std::string JobCwd(const View& view);
std::string JobUser(const View& view);
std::string JobInput(const View& view);
std::string JobDeadline(const View& view);
std::string JobStateText(const View& view);
std::string JobReason(const View& view);
std::string JobExitCode(const View& view);

}  // namespace sbxfs::show

// Change::text is what was written, as it is.
namespace sbxfs::store {

void JobCommand(const Change& change, Reply<Done> reply);
void JobArgv(const Change& change, Reply<Done> reply);
void JobEnv(const Change& change, Reply<Done> reply);
void JobCwd(const Change& change, Reply<Done> reply);
void JobUser(const Change& change, Reply<Done> reply);
void JobInput(const Change& change, Reply<Done> reply);
void JobDeadline(const Change& change, Reply<Done> reply);

}  // namespace sbxfs::store

#endif  // SBXFS_FS_JOB_TEXT_H_
