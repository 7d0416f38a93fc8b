// MindSpore Lite behind the Engine interface: the only part that needs the vendor's library.
#ifndef STPM_INC_LITE_ENGINE_H_
#define STPM_INC_LITE_ENGINE_H_

#include <memory>
#include <vector>

#include "inc/pipeline.h"
#include "include/api/model.h"

namespace stpm {

// What the library writes to stderr while this loads or infers is held back by a LogCapture: of all engines of a
// process one works at a time.
class LiteEngine : public Engine {
 public:
  // Loads the model of options.mindir_path onto the device. Throws Error if that fails, or if the model is not one
  // float32 (N, 3, H, W) input and one float32 (N, 1, H, W) output.
  explicit LiteEngine(const Options &options);

  size_t batch_size() const override { return batch_size_; }
  ImageSize image_size() const override { return image_size_; }
  void Infer(const float *images, float *maps) override;

 private:
  const bool holds_log_back_;
  mindspore::Model model_;
  std::vector<mindspore::MSTensor> inputs_;
  size_t batch_size_ = 0;
  ImageSize image_size_;
};

// Returns a new one.
std::unique_ptr<Engine> LoadLiteEngine(const Options &options);

}  // namespace stpm

#endif  // STPM_INC_LITE_ENGINE_H_
