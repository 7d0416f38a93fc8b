#include "inc/options.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <functional>
#include <limits>
#include <map>

#include "inc/cores.h"

namespace stpm {
namespace {

constexpr double kLargest = 3.4e38;  // as LARGEST in src/utils.py
// The library has the processor take smaller ones for 0, and every image would be defective.
constexpr double kSmallest = std::numeric_limits<float>::min();
constexpr int kMostThreads = 1024;

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
  // by way of double, as in Python: straight to float, some texts would give another number or pass the limit
  const double number = std::strtod(text.c_str(), &end);
  // the texts that the Python programs take: no spaces, hexadecimal or infinite numbers
  const bool is_decimal = !text.empty() && text.find_first_not_of("0123456789.eE+-") == std::string::npos;
  if (!is_decimal || *end != '\0' || !(number >= kSmallest && number <= kLargest)) {
    throw UsageError("--threshold: expected a number from 1.17549436e-38 to 3.4e38, got '" + text + "'");
  }
  return static_cast<float>(number);
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
  --threads N          threads of the inference on CPU (default: the cores that affinity and CPU quota allow)
  --warmup N           calls before the counted ones (default 3)
  --threshold X        anomaly score from which an image is defective: adds a verdict to scores.csv
)";
}

Options ParseOptions(int argc, char *const argv[]) {
  Options options;
  const std::map<std::string, std::function<void(const std::string &)>> flags = {
      {"--mindir_path", [&](const std::string &value) { options.mindir_path = value; }},
      {"--input_path", [&](const std::string &value) { options.input_path = value; }},
      {"--result_path", [&](const std::string &value) { options.result_path = value; }},
      {"--time_path", [&](const std::string &value) { options.time_path = value; }},
      {"--device_type", [&](const std::string &value) { options.device_type = ParseDeviceType(value); }},
      {"--device_id",
       [&](const std::string &value) {
         options.device_id = static_cast<uint32_t>(ParseInteger("--device_id", value, 0, 65535));
       }},
      {"--threads",
       [&](const std::string &value) {
         options.threads = static_cast<int>(ParseInteger("--threads", value, 1, kMostThreads));
       }},
      {"--warmup",
       [&](const std::string &value) {
         options.warmup = static_cast<int>(ParseInteger("--warmup", value, 0, 1000000));
       }},
      {"--threshold",
       [&](const std::string &value) {
         options.has_threshold = true;
         options.threshold = ParseThreshold(value);
       }},
  };
  // not getopt_long, which takes abbreviations
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--help") {
      options.help = true;
      return options;
    }
    if (word.size() < 2 || word[0] != '-' || word == "--") throw UsageError(word + ": unexpected argument");
    const size_t equals = word.find('=');
    const auto flag = flags.find(word.substr(0, equals));
    if (flag == flags.end()) throw UsageError(word + ": no such flag");
    if (equals == std::string::npos && i + 1 == argc) throw UsageError(word + ": a value is missing");
    flag->second(equals == std::string::npos ? argv[++i] : word.substr(equals + 1));
  }
  RequirePath("--mindir_path", options.mindir_path);
  RequirePath("--input_path", options.input_path);
  RequirePath("--result_path", options.result_path);
  RequirePath("--time_path", options.time_path);
  if (options.threads == 0) options.threads = std::min(CoreCount(), kMostThreads);
  return options;
}

}  // namespace stpm
