// Height and width of the network's input and of an anomaly map.
#ifndef STPM_INC_IMAGE_SIZE_H_
#define STPM_INC_IMAGE_SIZE_H_

#include <cstddef>
#include <string>

namespace stpm {

struct ImageSize {
  size_t height = 0, width = 0;  // pixels

  size_t pixels() const { return height * width; }
  bool operator==(const ImageSize &other) const { return height == other.height && width == other.width; }
};

// Returns a size as it is said: "256", or "320x1024" (height x width).
inline std::string Text(const ImageSize &size) {
  const std::string height = std::to_string(size.height);
  return size.height == size.width ? height : height + "x" + std::to_string(size.width);
}

}  // namespace stpm

#endif  // STPM_INC_IMAGE_SIZE_H_
