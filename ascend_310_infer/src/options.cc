#include "inc/options.h"

#include <getopt.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <limits>
#include <thread>

namespace stpm {
namespace {

constexpr float kLargest = 3.4e38F;  // as LARGEST in src/utils.py

int64_t ParseInteger(const std::string &flag, const std::string &text, int64_t minimum, int64_t maximum) {
  char *end = nullptr;
  errno = 0;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  const bool starts_well = !text.empty() && (text[0] == '-' || (text[0] >= '0' && text[0] <= '9'));
  if (!starts_well || *end != '\0' || errno != 0 || value < minimum || value > maximum) {
    throw UsageError(flag + ": expected a whole number from " + std::to_string(minimum) + " to " +
                     std::to_string(maximum) + ", got '" + text + "'");
  }
  return value;
}

float ParseThreshold(const std::string &text) {
  char *end = nullptr;
  const float value = std::strtof(text.c_str(), &end);
  // the texts that the Python programs take: no spaces, hexadecimal or infinite numbers
  const bool is_decimal = !text.empty() && text.find_first_not_of("0123456789.eE+-") == std::string::npos;
  if (!is_decimal || *end != '\0' || !(value > 0.0F && value <= kLargest)) {
    throw UsageError("--threshold: expected a number above 0 and up to 3.4e38, got '" + text + "'");
  }
  return value;
}

DeviceType ParseDeviceType(const std::string &text) {
  if (text == "Ascend") return DeviceType::kAscend;
  if (text == "GPU") return DeviceType::kGpu;
  if (text == "CPU") return DeviceType::kCpu;
  throw UsageError("--device_type: expected Ascend, GPU or CPU, got '" + text + "'");
}

void RequirePath(const char *flag, const std::string &value) {
  if (value.empty()) throw UsageError(std::string(flag) + " is required");
}

}  // namespace

std::string Usage(const std::string &program) {
  return "usage: " + program + R"( --mindir_path FILE --input_path DIR --result_path DIR --time_path DIR [flags]

Computes the anomaly map of every network input in a folder.

  --mindir_path FILE   model that export.py wrote (MINDIR)
  --input_path DIR     .bin files that preprocess.py wrote, float32 (1, 3, S, S) each
  --result_path DIR    receives <name>_0.bin, float32 (1, 1, S, S), for each, and scores.csv
  --time_path DIR      receives timing.txt
  --device_type TYPE   Ascend, GPU or CPU (default Ascend)
  --device_id N        number of the card (default 0; not used on CPU)
  --threads N          threads of the inference on CPU (default: the number of cores)
  --warmup N           calls before the counted ones (default 3)
  --threshold X        anomaly score from which an image is defective: adds a verdict to scores.csv
)";
}

Options ParseOptions(int argc, char *const argv[]) {
  enum Flag { kMindir = 256, kInput, kResult, kTime, kType, kId, kThreads, kWarmup, kThreshold, kHelp };
  const option flags[] = {
      {"mindir_path", required_argument, nullptr, kMindir},
      {"input_path", required_argument, nullptr, kInput},
      {"result_path", required_argument, nullptr, kResult},
      {"time_path", required_argument, nullptr, kTime},
      {"device_type", required_argument, nullptr, kType},
      {"device_id", required_argument, nullptr, kId},
      {"threads", required_argument, nullptr, kThreads},
      {"warmup", required_argument, nullptr, kWarmup},
      {"threshold", required_argument, nullptr, kThreshold},
      {"help", no_argument, nullptr, kHelp},
      {nullptr, 0, nullptr, 0},
  };
  Options options;
  optind = 0;  // getopt keeps its place between calls; 0 makes it start anew
  opterr = 0;
  for (int flag = 0; (flag = getopt_long(argc, argv, ":", flags, nullptr)) != -1;) {
    const std::string value = optarg == nullptr ? "" : optarg;
    switch (flag) {
      case kMindir:
        options.mindir_path = value;
        break;
      case kInput:
        options.input_path = value;
        break;
      case kResult:
        options.result_path = value;
        break;
      case kTime:
        options.time_path = value;
        break;
      case kType:
        options.device_type = ParseDeviceType(value);
        break;
      case kId:
        options.device_id = static_cast<uint32_t>(ParseInteger("--device_id", value, 0, 65535));
        break;
      case kThreads:
        options.threads = static_cast<int>(ParseInteger("--threads", value, 1, 1024));
        break;
      case kWarmup:
        options.warmup = static_cast<int>(ParseInteger("--warmup", value, 0, 1000000));
        break;
      case kThreshold:
        options.has_threshold = true;
        options.threshold = ParseThreshold(value);
        break;
      case kHelp:
        options.help = true;
        return options;
      case ':':
        throw UsageError(std::string(argv[optind - 1]) + ": a value is missing");
      default:  // of letters, as in -xy, getopt tells the letter, and is not yet past the word
        const bool is_letter = optopt != 0 && optopt < kMindir;
        throw UsageError((is_letter ? std::string("-") + static_cast<char>(optopt) : argv[optind - 1]) +
                         ": no such flag, or not a unique one");
    }
  }
  if (optind < argc) throw UsageError(std::string(argv[optind]) + ": unexpected argument");
  RequirePath("--mindir_path", options.mindir_path);
  RequirePath("--input_path", options.input_path);
  RequirePath("--result_path", options.result_path);
  RequirePath("--time_path", options.time_path);
  if (options.threads == 0) options.threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  return options;
}

}  // namespace stpm
