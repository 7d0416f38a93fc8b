#include "inc/selftest.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "inc/log_capture.h"
#include "tests/check.h"

namespace stpm {
namespace {

// An engine whose map is the first channel of the image, each image of the batch a little further off.
class FakeEngine : public Engine {
 public:
  FakeEngine(size_t batch_size, size_t side) : batch_size_(batch_size), side_(side) {}
  size_t batch_size() const override { return batch_size_; }
  ImageSize image_size() const override { return {side_, side_}; }
  void Infer(const float *images, float *maps) override {
    const size_t floats = output_floats();
    for (size_t i = 0; i < batch_size_ * floats; ++i) {
      const size_t image = i / floats;
      maps[i] = images[image * input_floats() + i % floats] + error * static_cast<float>(image);
    }
  }
  float error = 0.0F;

 private:
  size_t batch_size_, side_;
};

// By hand: of channel 0 at (0, 0) 0; of channel 1 at (0, 0) 53; of channel 2, row 5, column 9 63 + 65 + 106 = 234 xor
// 45 >> 4 = 2, so 232; of channel 0, row 15, column 15 105 + 195 = 300 xor 225 >> 4 = 14, so 290, less 256.
void TestPattern() {
  const std::vector<float> input = PatternInput({16, 16});
  const auto at = [&](size_t channel, size_t y, size_t x) { return input[(channel * 16 + y) * 16 + x]; };
  CHECK(input.size() == 3 * 16 * 16);
  CHECK(at(0, 0, 0) == (0.0F - 0.485F) / 0.229F);
  CHECK(at(1, 0, 0) == (53.0F / 255.0F - 0.456F) / 0.224F);
  CHECK(at(2, 5, 9) == (232.0F / 255.0F - 0.406F) / 0.225F);
  CHECK(at(0, 15, 15) == (34.0F / 255.0F - 0.485F) / 0.229F);
  const std::vector<float> wide = PatternInput({4, 16});  // the first rows of each channel
  CHECK(wide.size() == 3 * 4 * 16 && wide[4 * 16] == at(1, 0, 0) && wide[63] == at(0, 3, 15));
}

void TestComparison() {
  const std::vector<float> input = PatternInput({16, 16});
  const double score = *std::max_element(input.begin(), input.begin() + 256);
  SelfTest expected;
  expected.image_size = {16, 16};
  expected.score = score;
  expected.map = {{0, 0, input[0]}, {3, 7, input[3 * 16 + 7]}, {15, 2, input[15 * 16 + 2]}};
  FakeEngine engine(3, 16);
  SelfTestResult result = RunSelfTest(&engine, expected, "a.json");
  CHECK(result.map_difference == 0.0 && result.score_difference == 0.0);
  engine.error = 0.5F;  // 1 in the third image of the batch
  result = RunSelfTest(&engine, expected, "a.json");
  double largest = 0.0;
  for (const SelfTest::Place &place : expected.map) largest = std::max(largest, std::abs(place.value));
  CHECK(std::abs(result.map_difference - 1.0 / largest) < 1e-6);
  CHECK(std::abs(result.score_difference - 1.0 / score) < 1e-6);
  engine.error = 0.0F;
  expected.map[1].value = -expected.map[1].value;
  CHECK(RunSelfTest(&engine, expected, "a.json").map_difference > 0.01);
  engine.error = NAN;
  CHECK(Contains(Thrown<Error>([&] { RunSelfTest(&engine, expected, "a.json"); }), "holds NaN"));
  expected.image_size = {32, 32};
  CHECK(Contains(Thrown<Error>([&] { RunSelfTest(&engine, expected, "a.json"); }),
                 "a.json: its selftest is of images of 32 pixels, the model takes others"));
}

void TestTolerance() {
  Options options;
  const auto tolerance = [&](DeviceType type, const char *precision) {
    options.device_type = type;
    options.precision = precision;
    return SelfTestTolerance(options);
  };
  CHECK(tolerance(DeviceType::kCpu, "enforce_fp32") == 1e-4 && tolerance(DeviceType::kGpu, "enforce_fp32") == 1e-4);
  CHECK(tolerance(DeviceType::kGpu, "preferred_fp16") == 1e-2 &&
        tolerance(DeviceType::kAscend, "enforce_fp32") == 1e-2);
  CHECK(SelfTestReport({1.5e-3, 0.0}, options) ==
        "device: Ascend\nlargest relative difference of the map: 0.0015\n"
        "relative difference of the score: 0\ntolerance: 0.01\n");
}

// As the library writes them.
const char kDevice[] =
    "[WARNING] ME(1,7fa,stpm_infer):2026-11-26-03:50:47.082.375 [mindspore/lite/dlutils.h:101] DLSoOpen] dlopen a.so "
    "failed, error: libgraph.so: cannot open\n"
    "[ERROR] ME(1,7fa,stpm_infer):2026-11-26-03:50:47.082.918 [mindspore/lite/single_op_session.cc:77] Init] Init "
    "ascend failed.\n"
    "[ERROR] ME(1,7fa,stpm_infer):2026-11-26-03:50:47.082.919 [mindspore/lite/single_op_session.cc:77] Init] Init "
    "ascend failed.\n\n-----------\nplain\n";

void TestLog() {
  CHECK(Digest("").empty());
  CHECK(Digest(kDevice) == "\n  dlopen a.so failed, error: libgraph.so: cannot open\n  Init ascend failed.\n  plain");
  std::string many;
  for (int i = 0; i < 100; ++i) many += std::to_string(i) + "\n";
  CHECK(!Contains(Digest(many), "\n  87\n") && Contains(Digest(many), "\n  88\n") && Contains(Digest(many), "\n  99"));
  CHECK(::unsetenv("GLOG_v") == 0);
  CHECK(Contains(WithoutWarnings(kDevice), "Init ascend failed.") && !Contains(WithoutWarnings(kDevice), "dlopen"));
  CHECK(::setenv("GLOG_v", "2", 1) == 0);
  CHECK(WithoutWarnings(kDevice) == kDevice);
}

void TestCapture() {
  const char kText[] = "said\n";
  {
    LogCapture capture;
    CHECK(::write(STDERR_FILENO, kText, sizeof(kText) - 1) > 0);
    CHECK(capture.Take() == kText);
    CHECK(capture.Take().empty());
  }
  std::string text;
  {
    LogCapture outer;
    {
      const char kWide[] = "0123456789abcdef";
      for (int i = 0; i < 1000; ++i) CHECK(::write(STDERR_FILENO, kWide, sizeof(kWide) - 1) > 0);
      text = outer.Take();
    }
  }
  CHECK(text.size() == 16000);
}

// Texts of mindspore-lite's sources, each once.
void TestLoadFailure() {
  const auto failure = [](const std::string &log, const std::string &status = "Common error code.") {
    return LoadFailure("a.mindir", "Ascend 3", status, log);
  };
  CHECK(failure("", "odd") ==
        "a.mindir: cannot be loaded as a MINDIR on Ascend 3 (see --device_type); "
        "the library says: odd");
  const std::string newer =
      failure("Catch exception: This software can only support the maximum mind ir version: 1, ...");
  CHECK(Contains(newer, "a.mindir: is a MINDIR of a newer version than this MindSpore Lite reads; export it with "));
  CHECK(Contains(newer, "\n  Catch exception: This software can only support the maximum mind ir version: 1, ..."));
  for (const char *log : {kDevice, "DLSoOpen failed, so path: x", "Could not find target so x in y",
                          "Get path of libruntime_convert_plugin.so failed. error: ", "get Converter func failed",
                          "Failed to register TensorRT plugin", "Get real path of libascend_acl_plugin.so failed."}) {
    CHECK(Contains(failure(log), "Ascend 3: a plugin of MindSpore Lite is missing or cannot be loaded; "));
  }
  for (const char *log : {"Acl open device 3 failed.", "Acl init failed.", "cudaSetDevice failed, error code: 101",
                          "Current device id 3 is invalid, please check device info of context."}) {
    CHECK(Contains(failure(log), "Ascend 3: no such device, or it cannot be opened; "));
  }
  CHECK(Contains(failure("", "Acl open device failed, device_id is invalid."), "Ascend 3: no such device"));
  for (const char *log :
       {"ParseFromArray failed.", "Failed to load MindIR model, please check the validity of the model.",
        "Parse model producer version from pb file failed!",
        "failed to load MindIR model!\nconvert graph failed!ret = "}) {
    CHECK(Contains(failure(log), "a.mindir: is damaged, or is no MINDIR; export it again; the library says: Common"));
  }
  CHECK(Contains(failure("", "func_graph is nullptr, failed to load MindIR model!"), "a.mindir: is damaged"));
  CHECK(Contains(failure("Call aclmdlLoadFromMem failed, ret = 545000"), "a.mindir: is refused by the device: "));
  CHECK(Contains(failure("Failed to converter graph"), "a.mindir: cannot be converted for the device, "));
  CHECK(Contains(failure("get Converter func failed\nconvert graph failed!ret = "), "Ascend 3: a plugin of"));
}

}  // namespace
}  // namespace stpm

int main() {
  stpm::TestPattern();
  stpm::TestComparison();
  stpm::TestTolerance();
  stpm::TestLog();
  stpm::TestCapture();
  stpm::TestLoadFailure();
  return stpm::failures == 0 ? 0 : 1;
}
