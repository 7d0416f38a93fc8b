// How many processor cores a run may use.
#ifndef STPM_INC_CORES_H_
#define STPM_INC_CORES_H_

#include <string>

namespace stpm {

// Returns the CPU quota of this process's control group in cores, rounded up; 0 if there is none. Groups of version 1
// (cpu.cfs_quota_us, cpu.cfs_period_us) and version 2 (cpu.max) count, and of a group and those above it the tightest.
// What cannot be read is no quota. The files are looked for below root: proc/self/cgroup and sys/fs/cgroup.
int QuotaCores(const std::string &root);

// Returns how many threads can run at once: the smaller of the CPU affinity and the quota; at least 1.
int CoreCount(const std::string &root = "/");

}  // namespace stpm

#endif  // STPM_INC_CORES_H_
