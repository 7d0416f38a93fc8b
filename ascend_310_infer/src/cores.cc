#include "inc/cores.h"

#include <sched.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>
#include <thread>
#include <vector>

#include "inc/utils.h"

namespace stpm {
namespace {

// Returns a whole number above 0; 0 if the text is none, such as "max" or "-1".
int64_t PositiveNumber(const std::string &text) {
  const bool is_number =
      !text.empty() && text.size() <= 19 && text[0] != '0' && text.find_first_not_of("0123456789") == std::string::npos;
  return is_number ? std::strtoll(text.c_str(), nullptr, 10) : 0;
}

// Returns the words of a file; none if it cannot be read.
std::vector<std::string> Words(const std::string &path) {
  std::ifstream file(path);
  std::vector<std::string> words;
  for (std::string word; file >> word;) words.push_back(word);
  return words;
}

int64_t DivideUp(int64_t quota, int64_t period) { return quota / period + (quota % period == 0 ? 0 : 1); }

// Returns the quota of one group in cores; 0 if it has none. As cpu_quota in src/utils.py: both numbers are needed.
int64_t QuotaOf(const std::string &group) {
  const std::string version2 = Join(group, "cpu.max");  // quota, or "max", and period
  std::vector<std::string> words = Words(version2);
  if (!Exists(version2)) {
    words = Words(Join(group, "cpu.cfs_quota_us"));
    for (const std::string &word : Words(Join(group, "cpu.cfs_period_us"))) words.push_back(word);
  }
  if (words.size() != 2) return 0;
  const int64_t quota = PositiveNumber(words[0]), period = PositiveNumber(words[1]);
  return quota == 0 || period == 0 ? 0 : DivideUp(quota, period);
}

// Returns a group's path and those of the groups above it, up to the mount's root, which ends in no slash. Inside a
// container the path may be the host's, of which nothing is mounted but the root.
std::vector<std::string> Ancestors(const std::string &mount, std::string group) {
  std::vector<std::string> paths;
  while (!group.empty() && group != "/") {
    paths.push_back(mount + group);
    group.erase(group.find_last_of('/'));
  }
  paths.push_back(mount);
  return paths;
}

bool HasWord(const std::string &list, const std::string &word) {
  return ("," + list + ",").find("," + word + ",") != std::string::npos;
}

int Affinity() {
  for (int cores = 1024; cores <= 1 << 20; cores *= 2) {  // the kernel refuses a set that is smaller than its own
    cpu_set_t *const set = CPU_ALLOC(static_cast<size_t>(cores));
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(cores));
    const bool ok = ::sched_getaffinity(0, bytes, set) == 0;
    const int count = ok ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (ok) return count;
  }
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

int QuotaCores(const std::string &root) {
  const std::string mounts = Join(root, "sys/fs/cgroup");
  int64_t tightest = 0;
  const auto note = [&](int64_t quota) {
    if (quota > 0 && (tightest == 0 || quota < tightest)) tightest = quota;
  };
  std::ifstream file(Join(root, "proc/self/cgroup"));
  for (std::string line; std::getline(file, line);) {  // number:controllers:path, in version 2 0::path
    std::istringstream fields(line);
    std::string number, controllers, group;
    std::getline(fields, number, ':');
    std::getline(fields, controllers, ':');
    std::getline(fields, group);
    if (group.empty() || group[0] != '/') continue;
    if (number == "0" && controllers.empty()) {
      for (const char *const mount : {"", "/unified"}) {  // the second beside groups of version 1
        for (const std::string &path : Ancestors(mounts + mount, group)) note(QuotaOf(path));
      }
    } else if (HasWord(controllers, "cpu")) {
      for (const std::string &mount : {std::string("cpu"), controllers}) {
        for (const std::string &path : Ancestors(Join(mounts, mount), group)) note(QuotaOf(path));
      }
    }
  }
  return static_cast<int>(std::min<int64_t>(tightest, std::numeric_limits<int>::max()));
}

int CoreCount(const std::string &root) {
  const int affinity = std::max(1, Affinity()), quota = QuotaCores(root);
  return quota == 0 ? affinity : std::min(affinity, quota);
}

}  // namespace stpm
