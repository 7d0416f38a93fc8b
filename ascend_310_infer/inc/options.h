// The command line of the inference program.
#ifndef STPM_INC_OPTIONS_H_
#define STPM_INC_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "inc/flags.h"

namespace stpm {

enum class DeviceType { kAscend, kGpu, kCpu };

constexpr char kFloat32Mode[] = "enforce_fp32";
constexpr char kThresholdLimits[] = "1.17549436e-38 to 3.4e38";

struct Options {
  std::string mindir_path;
  std::string input_path = ".";   // folder of .bin files
  std::string result_path = ".";  // folder for the maps and scores.csv
  std::string time_path = ".";    // folder for timing.txt
  DeviceType device_type = DeviceType::kCpu;
  bool is_device_chosen = false;  // by --device_type, and not by what the machine has
  uint32_t device_id = 0;
  bool is_precision_chosen = false;
  std::string precision = kFloat32Mode;  // in the vendor's words; means nothing on CPU, which computes in float32
  int threads = 0;                       // of the CPU; CompleteModelOptions replaces 0 by CoreCount()
  int warmup = 3;                        // calls before the counted ones
  // Whether to hold back what the library writes to stderr while it infers, to tell of it if that fails. What is held
  // back is the whole process's, so that only one engine at a time may do so.
  bool holds_log_back = true;
  std::optional<float> threshold;  // in place of the model's own; so is the next
  std::optional<float> review;
  bool selftest = false;
  bool help = false;
};

// Returns whether a number can be a threshold: within kThresholdLimits, as in the Python programs.
bool IsThreshold(double number);

// Returns whether a number can be the share of the threshold from which an image is to be looked at.
bool IsShare(double number);

// Returns the device's name in the words of --device_type.
std::string DeviceName(const Options &options);

// Returns the path of the file that is there where an Ascend's driver is loaded: /dev/davinci_manager, or what the
// environment variable STPM_DAVINCI says.
std::string DriverFile();

// Returns the flags of all programs that load a model, for ParseFlags; the options must outlive them.
Flags ModelFlags(Options *options);

// Sets what none of these flags has set: without --device_type, or with auto, the device is Ascend where DriverFile()
// is, else CPU. Throws UsageError: the precision is none of the device's.
void CompleteModelOptions(Options *options);

// Throws UsageError if a flag that must be given has no value.
void RequirePath(const char *flag, const std::string &value);

// Returns the text of --help.
std::string Usage(const std::string &program);

// Parses the command line. Throws UsageError, which names the flag and the value and says what would be right.
Options ParseOptions(int argc, char *const argv[]);

}  // namespace stpm

#endif  // STPM_INC_OPTIONS_H_
