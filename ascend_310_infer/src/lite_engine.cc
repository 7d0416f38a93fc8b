#include "inc/lite_engine.h"

#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "inc/log_capture.h"
#include "include/api/context.h"

namespace stpm {
namespace {

std::shared_ptr<mindspore::DeviceInfoContext> MakeDevice(const Options &options) {
  switch (options.device_type) {
    case DeviceType::kAscend: {
      auto device = std::make_shared<mindspore::AscendDeviceInfo>();
      device->SetDeviceID(options.device_id);
      // What these modes compute (CANN: "precision_mode" of ATC; Lite hands them on as ACL's words, acl_utils.h):
      //   enforce_fp32       force_fp32, which is cube_fp16in_fp32out: convolutions take float16 and give float32, all
      //                      else is float32
      //   preferred_fp32     allow_fp32_to_fp16: convolutions are float16 altogether, the rest keeps float32
      //   enforce_fp16       force_fp16, the default: the product of three small maps nears the smallest normal number
      //   preferred_optimal  allow_mix_precision: float16 by the toolkit's list of operators
      device->SetPrecisionMode(options.precision);
      device->SetOpSelectImplMode("high_precision");  // of an operator's two forms the exact one; default: the fast one
      return device;
    }
    case DeviceType::kGpu: {
#ifdef STPM_HAS_GPU
      auto device = std::make_shared<mindspore::GPUDeviceInfo>();
      device->SetDeviceID(options.device_id);
      device->SetPrecisionMode(options.precision);
      return device;
#else
      throw Error("--device_type GPU: the program was built with a MindSpore Lite that has no GPU");
#endif
    }
    case DeviceType::kCpu:
      break;
  }
  return std::make_shared<mindspore::CPUDeviceInfo>();
}

// Returns the device for messages, and what speaks against there being one.
std::string Describe(const Options &options) {
  if (options.device_type == DeviceType::kCpu) return DeviceName(options);
  const std::string text = DeviceName(options) + " " + std::to_string(options.device_id);
  const bool is_missing = options.device_type == DeviceType::kAscend && !Exists(DriverFile());
  return is_missing ? text + " (there is no " + DriverFile() + ")" : text;
}

std::string Text(const std::vector<int64_t> &shape) {
  std::string text;
  for (const int64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "(" + text + ")";
}

// Throws Error unless the tensor is float32 (N, channels, H, W).
void CheckTensor(const std::string &path, const mindspore::MSTensor &tensor, int64_t channels) {
  const std::vector<int64_t> &shape = tensor.Shape();
  const bool right = tensor.DataType() == mindspore::DataType::kNumberTypeFloat32 && shape.size() == 4 &&
                     shape[0] > 0 && shape[1] == channels && shape[2] > 0 && shape[3] > 0;
  if (!right) {
    throw Error(path + ": tensor " + tensor.Name() + " has shape " + Text(shape) + ", expected float32 (N, " +
                std::to_string(channels) + ", H, W); export the model with export.py");
  }
}

}  // namespace

LiteEngine::LiteEngine(const Options &options) : holds_log_back_(options.holds_log_back) {
  const std::string &path = options.mindir_path;
  LogCapture capture;
  const auto context = std::make_shared<mindspore::Context>();
  context->SetThreadNum(options.threads);
  // Operators of teacher and student run side by side: 7 to 12 % faster on two cores. One thread cannot.
  const bool is_cpu = options.device_type == DeviceType::kCpu;
  if (is_cpu && options.threads > 1) context->SetInterOpParallelNum(2);
  context->MutableDeviceInfo().push_back(MakeDevice(options));
  const mindspore::Status status = model_.Build(path, mindspore::kMindIR, context);
  const std::string log = capture.Take();
  if (status != mindspore::kSuccess) {
    throw Error(LoadFailure(path, Describe(options), status.ToString(), log));
  }
  std::fputs(WithoutWarnings(log).c_str(), stderr);
  inputs_ = model_.GetInputs();
  const std::vector<mindspore::MSTensor> outputs = model_.GetOutputs();
  if (inputs_.size() != 1 || outputs.size() != 1) {
    throw Error(path + ": has " + std::to_string(inputs_.size()) + " inputs and " + std::to_string(outputs.size()) +
                " outputs, expected one each; export the checkpoint with export.py (the model zoo's gives six)");
  }
  CheckTensor(path, inputs_[0], 3);
  CheckTensor(path, outputs[0], 1);
  const std::vector<int64_t> &shape = inputs_[0].Shape();
  const std::vector<int64_t> map_shape = outputs[0].Shape();
  if (map_shape[0] != shape[0] || map_shape[2] != shape[2] || map_shape[3] != shape[3]) {
    throw Error(path + ": images " + Text(shape) + " and maps " + Text(map_shape) + " differ in size");
  }
  batch_size_ = static_cast<size_t>(shape[0]);
  image_size_ = {static_cast<size_t>(shape[2]), static_cast<size_t>(shape[3])};
}

void LiteEngine::Infer(const float *images, float *maps) {
  void *const target = inputs_[0].MutableData();
  if (target == nullptr) throw Error("the library gave no memory for the model's input");
  std::memcpy(target, images, batch_size_ * input_floats() * sizeof(float));
  std::vector<mindspore::MSTensor> outputs;
  std::optional<LogCapture> capture;
  if (holds_log_back_) capture.emplace();
  const mindspore::Status status = model_.Predict(inputs_, &outputs);
  const std::string log = capture ? capture->Take() : "";
  if (status != mindspore::kSuccess) {
    throw Error("inference failed; the library says: " + status.ToString() + Digest(log));
  }
  if (!log.empty()) std::fputs(log.c_str(), stderr);
  const size_t bytes = batch_size_ * output_floats() * sizeof(float);
  if (outputs.size() != 1 || outputs[0].DataType() != mindspore::DataType::kNumberTypeFloat32 ||
      outputs[0].DataSize() != bytes || outputs[0].Data() == nullptr) {
    throw Error("inference gave another output than the model promised");
  }
  std::memcpy(maps, outputs[0].Data().get(), bytes);
}

std::unique_ptr<Engine> LoadLiteEngine(const Options &options) { return std::make_unique<LiteEngine>(options); }

}  // namespace stpm
