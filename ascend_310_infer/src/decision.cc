#include "inc/decision.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

namespace stpm {
namespace {

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

// 8-connected regions of pixels that are added one by one.
class Regions {
 public:
  explicit Regions(const ImageSize &size)
      : width_(static_cast<uint32_t>(size.width)),
        height_(static_cast<uint32_t>(size.height)),
        parents_(size.pixels(), kNone),
        areas_(size.pixels(), 1) {}

  // Returns the area of the region that the pixel is now part of.
  size_t Add(uint32_t pixel) {
    parents_[pixel] = pixel;
    const uint32_t row = pixel / width_, column = pixel % width_;
    for (uint32_t y = row == 0 ? 0 : row - 1; y <= std::min(row + 1, height_ - 1); ++y) {
      for (uint32_t x = column == 0 ? 0 : column - 1; x <= std::min(column + 1, width_ - 1); ++x) {
        if (parents_[y * width_ + x] != kNone) Join(y * width_ + x, pixel);
      }
    }
    return areas_[Root(pixel)];
  }

 private:
  uint32_t Root(uint32_t pixel) {
    while (parents_[pixel] != pixel) {
      parents_[pixel] = parents_[parents_[pixel]];
      pixel = parents_[pixel];
    }
    return pixel;
  }

  void Join(uint32_t one, uint32_t other) {
    uint32_t large = Root(one), small = Root(other);
    if (large == small) return;
    if (areas_[large] < areas_[small]) std::swap(large, small);
    parents_[small] = large;
    areas_[large] += areas_[small];
  }

  const uint32_t width_, height_;
  std::vector<uint32_t> parents_;
  std::vector<size_t> areas_;
};

}  // namespace

float DecisionRule::Score(const float *map, const ImageSize &size) const {
  if (min_area <= 1) return *std::max_element(map, map + size.pixels());
  std::vector<uint32_t> pixels(size.pixels());
  std::iota(pixels.begin(), pixels.end(), 0U);
  const auto is_lower = [map](uint32_t one, uint32_t other) { return map[one] < map[other]; };
  // a heap, since few pixels are above the level that is looked for
  std::make_heap(pixels.begin(), pixels.end(), is_lower);
  Regions regions(size);
  for (auto end = pixels.end(); end != pixels.begin(); --end) {
    std::pop_heap(pixels.begin(), end, is_lower);
    const uint32_t pixel = *(end - 1);
    if (regions.Add(pixel) >= min_area) return map[pixel];
  }
  return *std::min_element(map, map + size.pixels());  // the area is larger than the map
}

std::string DecisionRule::Verdict(float score) const {
  if (score >= *threshold) return "defective";
  return review && Relative(score) >= *review ? "review" : "good";
}

}  // namespace stpm
