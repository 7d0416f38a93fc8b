// Picture files and images in memory -> the network's input, as a model's JSON says; as src/data/images.py.
#ifndef STPM_INC_PICTURE_READER_H_
#define STPM_INC_PICTURE_READER_H_

#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "inc/image.h"
#include "inc/image_size.h"
#include "inc/inspector.h"
#include "inc/sidecar.h"

namespace stpm {

// Threads may call all of it at the same time.
class PictureReader {
 public:
  // Throws Error: the JSON file of the model is missing, or does not say how pictures are prepared.
  PictureReader(const std::string &model_path, const Sidecar &sidecar);

  const ImageSize &image_size() const { return size_; }

  // Reads a file. What is worth saying of it is told on stderr, of each kind once. Throws Error, which names the file.
  Prepared Read(const std::string &path);

  // Prepares an image, which must not be empty. Throws Error, which names it as name, if it does not contain the
  // region of interest.
  Prepared See(const std::string &name, const ImageView &image);

 private:
  void Tell(const std::string &kind, const std::string &text);
  void TellOfFormerResizing(const std::string &name, const ImageView &image, const Image &seen);

  const std::string model_path_;
  ImageSize size_;
  std::optional<Box> roi_;
  std::mutex mutex_;
  bool may_differ_;             // whether pictures may be resized otherwise than those that the model was made with
  std::set<std::string> told_;  // kinds of remarks
};

}  // namespace stpm

#endif  // STPM_INC_PICTURE_READER_H_
