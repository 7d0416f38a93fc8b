#include "inc/options.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <functional>
#include <limits>
#include <map>
#include <vector>

#include "inc/cores.h"

namespace stpm {
namespace {

constexpr double kLargest = 3.4e38;  // as LARGEST in src/utils.py
// The library has the processor take smaller ones for 0, and every image would be defective.
constexpr double kSmallest = std::numeric_limits<float>::min();
constexpr int kMostThreads = 1024;

void ParseDeviceType(const std::string &text, Options *options) {
  options->is_device_chosen = text != "auto";
  if (text == "Ascend") {
    options->device_type = DeviceType::kAscend;
  } else if (text == "GPU") {
    options->device_type = DeviceType::kGpu;
  } else if (text == "CPU") {
    options->device_type = DeviceType::kCpu;
  } else if (text != "auto") {
    throw UsageError("--device_type: expected auto, Ascend, GPU or CPU, got '" + text + "'");
  }
}

// The library logs what it does not know, and goes on with its default, which is float16 on Ascend.
void CheckPrecision(const Options &options) {
  using Modes = std::vector<std::string>;
  const Modes modes = options.device_type == DeviceType::kAscend
                          ? Modes{"enforce_fp32", "preferred_fp32", "enforce_fp16", "preferred_optimal"}
                      : options.device_type == DeviceType::kGpu ? Modes{"enforce_fp32", "preferred_fp16"}
                                                                : Modes{};
  if (modes.empty()) throw UsageError("--precision: is for Ascend and GPU, the CPU computes in float32");
  if (std::find(modes.begin(), modes.end(), options.precision) != modes.end()) return;
  std::string text;
  for (const std::string &mode : modes) text += (text.empty() ? "" : ", ") + mode;
  throw UsageError("--precision: on " + DeviceName(options) + " expected one of " + text + ", got '" +
                   options.precision + "'");
}

}  // namespace

bool IsThreshold(double number) { return number >= kSmallest && number <= kLargest; }

bool IsShare(double number) { return number > 0.0 && number < 1.0; }

std::string DeviceName(const Options &options) {
  switch (options.device_type) {
    case DeviceType::kAscend:
      return "Ascend";
    case DeviceType::kGpu:
      return "GPU";
    case DeviceType::kCpu:
      break;
  }
  return "CPU";
}

std::string DriverFile() {
  const char *const path = std::getenv("STPM_DAVINCI");
  return path == nullptr || *path == '\0' ? "/dev/davinci_manager" : path;
}

std::string Usage(const std::string &program) {
  return "usage: " + program + R"( --mindir_path FILE [flags]

Computes the anomaly map of every network input in a folder.

  --mindir_path FILE   model that export.py wrote (MINDIR); its JSON, which stands beside it, says how to decide
  --input_path DIR     .bin files that preprocess.py wrote, float32 (1, 3, H, W) each (default .)
  --result_path DIR    receives <name>_0.bin, float32 (1, 1, H, W), for each, and scores.csv (default .)
  --time_path DIR      receives timing.txt and test_perform_static.txt (default .)
  --device_type TYPE   Ascend, GPU or CPU (default auto: Ascend where there is one, else CPU)
  --device_id N        number of the card (default 0; not used on CPU)
  --precision MODE     on Ascend enforce_fp32 (default), preferred_fp32, enforce_fp16 or preferred_optimal;
                       on GPU enforce_fp32 (default) or preferred_fp16
  --threads N          threads of the inference on CPU (default: the cores that affinity and CPU quota allow)
  --warmup N           calls before the counted ones (default 3)
  --threshold X        anomaly score from which an image is defective, in place of the model's own
  --review X           share of the threshold from which an image is called 'review', in place of the model's own
  --selftest           only check that the device computes what the model's JSON says
)";
}

Flags ModelFlags(Options *options) {
  return {
      {"--device_type", [=](const std::string &value) { ParseDeviceType(value, options); }},
      {"--device_id",
       [=](const std::string &value) {
         options->device_id = static_cast<uint32_t>(ParseInteger("--device_id", value, 0, 65535));
       }},
      {"--precision",
       [=](const std::string &value) {
         options->is_precision_chosen = true;
         options->precision = value;
       }},
      {"--threads",
       [=](const std::string &value) {
         options->threads = static_cast<int>(ParseInteger("--threads", value, 1, kMostThreads));
       }},
      // by way of double, as in Python: straight to float, some texts would give another number or pass the limit
      {"--threshold",
       [=](const std::string &value) {
         const std::string expected = std::string("from ") + kThresholdLimits;
         options->threshold = static_cast<float>(ParseNumber("--threshold", value, IsThreshold, expected));
       }},
      {"--review",
       [=](const std::string &value) {
         options->review = static_cast<float>(ParseNumber("--review", value, IsShare, "above 0 and below 1"));
       }},
  };
}

void CompleteModelOptions(Options *options) {
  if (!options->is_device_chosen) options->device_type = Exists(DriverFile()) ? DeviceType::kAscend : DeviceType::kCpu;
  if (options->is_precision_chosen) CheckPrecision(*options);
  if (options->threads == 0) options->threads = std::min(CoreCount(), kMostThreads);
}

void RequirePath(const char *flag, const std::string &value) {
  if (value.empty()) throw UsageError(std::string(flag) + " is required");
}

Options ParseOptions(int argc, char *const argv[]) {
  Options options;
  Flags flags = ModelFlags(&options);
  flags["--mindir_path"] = [&](const std::string &value) { options.mindir_path = value; };
  flags["--input_path"] = [&](const std::string &value) { options.input_path = value; };
  flags["--result_path"] = [&](const std::string &value) { options.result_path = value; };
  flags["--time_path"] = [&](const std::string &value) { options.time_path = value; };
  flags["--warmup"] = [&](const std::string &value) {
    options.warmup = static_cast<int>(ParseInteger("--warmup", value, 0, 1000000));
  };
  ParseFlags(argc, argv, flags, {{"--help", &options.help}, {"--selftest", &options.selftest}});
  if (options.help) return options;
  RequirePath("--mindir_path", options.mindir_path);
  RequirePath("--input_path", options.input_path);
  RequirePath("--result_path", options.result_path);
  RequirePath("--time_path", options.time_path);
  CompleteModelOptions(&options);
  return options;
}

}  // namespace stpm
