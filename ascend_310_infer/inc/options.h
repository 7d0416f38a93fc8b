// The command line of the inference program.
#ifndef STPM_INC_OPTIONS_H_
#define STPM_INC_OPTIONS_H_

#include <cstdint>
#include <string>

#include "inc/utils.h"

namespace stpm {

// The command line is wrong.
class UsageError : public Error {
 public:
  using Error::Error;
};

enum class DeviceType { kAscend, kGpu, kCpu };

struct Options {
  std::string mindir_path;
  std::string input_path;   // folder of .bin files
  std::string result_path;  // folder for the maps and scores.csv
  std::string time_path;    // folder for timing.txt
  DeviceType device_type = DeviceType::kAscend;
  uint32_t device_id = 0;
  int threads = 0;  // of the CPU; ParseOptions replaces 0 by CoreCount()
  int warmup = 3;   // calls before the counted ones
  bool has_threshold = false;
  float threshold = 0.0F;
  bool help = false;
};

// Returns the text of --help.
std::string Usage(const std::string &program);

// Parses the command line. Throws UsageError, which names the flag and the value and says what would be right.
Options ParseOptions(int argc, char *const argv[]);

}  // namespace stpm

#endif  // STPM_INC_OPTIONS_H_
