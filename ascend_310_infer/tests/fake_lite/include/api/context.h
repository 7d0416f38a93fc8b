// The part of MindSpore Lite's interface that the program uses, without inference: for tests of any device.
// What it is told stands in the file that FAKE_LITE_LOG names.
#ifndef STPM_TESTS_FAKE_LITE_CONTEXT_H_
#define STPM_TESTS_FAKE_LITE_CONTEXT_H_

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

namespace mindspore {

inline void Note(const std::string &line) {
  if (const char *const path = std::getenv("FAKE_LITE_LOG")) std::ofstream(path, std::ios::app) << line << '\n';
}

class DeviceInfoContext {
 public:
  explicit DeviceInfoContext(const std::string &name) : name_(name) {}
  void SetDeviceID(uint32_t id) { id_ = std::to_string(id); }
  void SetPrecisionMode(const std::string &mode) { mode_ = mode; }
  std::string Text() const { return name_ + " " + id_ + " " + mode_ + extra_; }

 protected:
  std::string extra_;

 private:
  std::string name_, id_ = "-", mode_ = "-";
};

struct AscendDeviceInfo : DeviceInfoContext {
  AscendDeviceInfo() : DeviceInfoContext("Ascend") {}
  void SetOpSelectImplMode(const std::string &mode) { extra_ = " " + mode; }
};
struct GPUDeviceInfo : DeviceInfoContext {
  GPUDeviceInfo() : DeviceInfoContext("GPU") {}
};
struct CPUDeviceInfo : DeviceInfoContext {
  CPUDeviceInfo() : DeviceInfoContext("CPU") {}
};

class Context {
 public:
  void SetThreadNum(int32_t count) { Note("threads " + std::to_string(count)); }
  void SetInterOpParallelNum(int32_t count) { Note("side by side " + std::to_string(count)); }
  std::vector<std::shared_ptr<DeviceInfoContext>> &MutableDeviceInfo() { return devices_; }

 private:
  std::vector<std::shared_ptr<DeviceInfoContext>> devices_;
};

}  // namespace mindspore

#endif  // STPM_TESTS_FAKE_LITE_CONTEXT_H_
