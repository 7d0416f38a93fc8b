// A model file has a line for each tensor, "in" or "out" with type and sizes, and a word for what goes wrong:
//   in float32 2 3 4 4
//   out float32 2 1 4 4
//   fails | short | half | throws | breaks | noisy | dies, or "says" and the text that it logs when it is loaded
// Its map is the image's first channel plus one. The file that FAKE_LITE_INPUT names receives the batch.
#ifndef STPM_TESTS_FAKE_LITE_MODEL_H_
#define STPM_TESTS_FAKE_LITE_MODEL_H_

#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

#include "include/api/context.h"

namespace mindspore {

enum class DataType { kNumberTypeFloat32, kOther };
enum ModelType { kMindIR };
enum StatusCode { kSuccess, kFailure };

class Status {
 public:
  Status(StatusCode code, const std::string &text = "") : code_(code), text_(text) {}
  bool operator!=(StatusCode code) const { return code_ != code; }
  std::string ToString() const { return text_; }

 private:
  StatusCode code_;
  std::string text_;
};

class MSTensor {
 public:
  MSTensor(const std::string &name, enum DataType type, const std::vector<int64_t> &shape)
      : name_(name), type_(type), shape_(shape) {
    size_t count = 1;
    for (const int64_t size : shape) count *= static_cast<size_t>(size);
    values_ = std::make_shared<std::vector<float>>(count);
  }
  const std::string &Name() const { return name_; }
  enum DataType DataType() const { return type_; }
  const std::vector<int64_t> &Shape() const { return shape_; }
  size_t DataSize() const { return values_->size() * sizeof(float); }
  void *MutableData() { return values_->data(); }
  std::shared_ptr<const void> Data() const { return {values_, values_->data()}; }
  std::vector<float> &values() { return *values_; }

 private:
  std::string name_;
  enum DataType type_;
  std::vector<int64_t> shape_;
  std::shared_ptr<std::vector<float>> values_;
};

class Model {
 public:
  Status Build(const std::string &path, ModelType, const std::shared_ptr<Context> &context) {
    for (const auto &device : context->MutableDeviceInfo()) Note("device " + device->Text());
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      std::string kind, type;
      words >> kind >> type;
      std::vector<int64_t> shape;
      for (int64_t size = 0; words >> size;) shape.push_back(size);
      const MSTensor tensor(kind, type == "float32" ? DataType::kNumberTypeFloat32 : DataType::kOther, shape);
      if (kind == "in") {
        inputs_.push_back(tensor);
      } else if (kind == "out") {
        outputs_.push_back(tensor);
      } else if (kind == "fails" || kind == "short" || kind == "half" || kind == "throws" || kind == "noisy") {
        wrong_ = kind;
      } else if (kind == "says") {
        std::fputs((line.substr(5) + "\n").c_str(), stderr);
      } else if (kind == "dies") {
        std::abort();
      } else if (kind == "breaks") {
        throw 42;  // as no library should
      } else {
        return {kFailure, "no model"};
      }
    }
    return kSuccess;
  }
  std::vector<MSTensor> GetInputs() { return inputs_; }
  std::vector<MSTensor> GetOutputs() { return outputs_; }
  Status Predict(const std::vector<MSTensor> &inputs, std::vector<MSTensor> *outputs) {
    Note("predict");
    if (wrong_ == "noisy") std::fputs("noise\n", stderr);
    if (wrong_ == "throws") throw "no exception";
    if (wrong_ == "fails") return {kFailure, "out of order"};
    *outputs = outputs_;
    std::vector<float> &maps = outputs->front().values(), images = MSTensor(inputs.front()).values();
    const size_t batch = static_cast<size_t>(inputs.front().Shape()[0]), size = maps.size() / batch;
    for (size_t i = 0; i < maps.size(); ++i) maps[i] = images[i / size * 3 * size + i % size] + 1.0F;
    if (const char *const path = std::getenv("FAKE_LITE_INPUT")) {
      std::ofstream(path, std::ios::binary)
          .write(reinterpret_cast<const char *>(images.data()),
                 static_cast<std::streamsize>(images.size() * sizeof(float)));
    }
    if (wrong_ == "half") outputs->front() = MSTensor("out", DataType::kOther, outputs->front().Shape());
    if (wrong_ == "short") outputs->front().values().pop_back();
    return kSuccess;
  }

 private:
  std::vector<MSTensor> inputs_, outputs_;
  std::string wrong_;
};

}  // namespace mindspore

#endif  // STPM_TESTS_FAKE_LITE_MODEL_H_
