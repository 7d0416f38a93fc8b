#include "inc/selftest.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>

#include "inc/network_input.h"

namespace stpm {
namespace {

// Returns max|found - expected| / max|expected|.
double LargestRelativeDifference(const std::vector<double> &found, const std::vector<double> &expected) {
  double difference = 0.0, largest = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference = std::max(difference, std::abs(found[i] - expected[i]));
    largest = std::max(largest, std::abs(expected[i]));
  }
  return difference / largest;
}

std::string Short(double value) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.2g", value);
  return text;
}

}  // namespace

std::vector<float> PatternInput(const ImageSize &size) {
  Image image{size.width, size.height, 3, {}};
  for (size_t y = 0; y < size.height; ++y) {
    for (size_t x = 0; x < size.width; ++x) {
      for (size_t channel = 0; channel < 3; ++channel) {
        image.pixels.push_back(static_cast<uint8_t>((7 * x + 13 * y + 53 * channel) ^ ((x * y) >> 4)));
      }
    }
  }
  std::vector<float> input(3 * size.pixels());
  ToNetworkInput(image.view(), Normalisation(), input.data());
  return input;
}

SelfTestResult RunSelfTest(Engine *engine, const SelfTest &expected, const std::string &sidecar_path) {
  const ImageSize &size = expected.image_size;
  const size_t batch_size = engine->batch_size(), floats = engine->output_floats();
  if (!(size == engine->image_size())) {
    throw Error(sidecar_path + ": its selftest is of images of " + Text(size) +
                " pixels, the model takes others; export the model again");
  }
  const std::vector<float> image = PatternInput(size);
  std::vector<float> images, maps(batch_size * floats);
  for (size_t i = 0; i < batch_size; ++i) images.insert(images.end(), image.begin(), image.end());
  engine->Infer(images.data(), maps.data());
  if (!std::all_of(maps.begin(), maps.end(), [](float value) { return std::isfinite(value); })) {
    throw Error("the anomaly map of the selftest holds NaN or infinity");
  }
  std::vector<double> values;
  for (const SelfTest::Place &place : expected.map) values.push_back(place.value);
  SelfTestResult result;
  for (size_t i = 0; i < batch_size; ++i) {
    const float *const map = &maps[i * floats];
    std::vector<double> found;
    for (const SelfTest::Place &place : expected.map) found.push_back(map[place.y * size.width + place.x]);
    const double score = *std::max_element(map, map + floats);
    result.map_difference = std::max(result.map_difference, LargestRelativeDifference(found, values));
    result.score_difference = std::max(result.score_difference, LargestRelativeDifference({score}, {expected.score}));
  }
  return result;
}

double SelfTestTolerance(const Options &options) {
  const bool is_float32 = options.device_type == DeviceType::kCpu ||
                          (options.device_type == DeviceType::kGpu && options.precision == kFloat32Mode);
  return is_float32 ? 1e-4 : 1e-2;
}

std::string SelfTestReport(const SelfTestResult &result, const Options &options) {
  return "device: " + DeviceName(options) +
         "\nlargest relative difference of the map: " + Short(result.map_difference) +
         "\nrelative difference of the score: " + Short(result.score_difference) +
         "\ntolerance: " + Short(SelfTestTolerance(options)) + "\n";
}

}  // namespace stpm
