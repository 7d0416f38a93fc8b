#include "inc/regions.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace stpm {
namespace {

// A region in pixels of the map.
struct Spot {
  size_t left, top, right, bottom;  // the last two are those of its last pixels
  float score;
  std::vector<size_t> pixels;
};

// Takes a region off what reaches the threshold, beginning with one of its pixels.
Spot TakeSpot(const float *map, const ImageSize &size, size_t start, std::vector<bool> *reached) {
  Spot spot = {start % size.width, start / size.width, start % size.width, start / size.width, map[start], {start}};
  (*reached)[start] = false;
  for (size_t i = 0; i < spot.pixels.size(); ++i) {  // which grows meanwhile
    const size_t pixel = spot.pixels[i], row = pixel / size.width, column = pixel % size.width;
    spot.score = std::max(spot.score, map[pixel]);
    spot.left = std::min(spot.left, column);
    spot.top = std::min(spot.top, row);
    spot.right = std::max(spot.right, column);
    spot.bottom = std::max(spot.bottom, row);
    for (size_t y = row == 0 ? 0 : row - 1; y <= std::min(row + 1, size.height - 1); ++y) {
      for (size_t x = column == 0 ? 0 : column - 1; x <= std::min(column + 1, size.width - 1); ++x) {
        if (!(*reached)[y * size.width + x]) continue;
        (*reached)[y * size.width + x] = false;
        spot.pixels.push_back(y * size.width + x);
      }
    }
  }
  return spot;
}

// Calls a function with each region of what reaches the threshold.
template <typename Function>
void ForEachSpot(const float *map, const ImageSize &size, float threshold, Function function) {
  std::vector<bool> reached(size.pixels());
  for (size_t i = 0; i < reached.size(); ++i) reached[i] = map[i] >= threshold;
  for (size_t i = 0; i < reached.size(); ++i) {
    if (reached[i]) function(TakeSpot(map, size, i, &reached));
  }
}

size_t DivideUp(size_t dividend, size_t divisor) { return (dividend + divisor - 1) / divisor; }

// From edge to edge, in whole numbers, so that boxes of whole pixels cover what they stand for and stay on the picture.
Region OnPicture(const Spot &spot, const ImageSize &size, const Box &box) {
  const size_t x = spot.left * box.width / size.width, y = spot.top * box.height / size.height;
  const size_t right = DivideUp((spot.right + 1) * box.width, size.width);
  const size_t bottom = DivideUp((spot.bottom + 1) * box.height, size.height);
  const double area =
      static_cast<double>(spot.pixels.size() * box.width * box.height) / static_cast<double>(size.pixels());
  // to the nearest, halves to the even one, as Python's round
  return {box.x + x, box.y + y, right - x, bottom - y, static_cast<size_t>(std::nearbyint(area)), spot.score};
}

}  // namespace

std::vector<Region> FindRegions(const float *map, const ImageSize &size, const DecisionRule &rule, const Box &box) {
  std::vector<Region> regions;
  ForEachSpot(map, size, *rule.threshold, [&](const Spot &spot) {
    if (spot.pixels.size() >= rule.min_area) regions.push_back(OnPicture(spot, size, box));
  });
  std::stable_sort(regions.begin(), regions.end(), [](const Region &one, const Region &other) {
    return std::make_tuple(-one.score, one.y, one.x) < std::make_tuple(-other.score, other.y, other.x);
  });
  return regions;
}

std::vector<float> WithoutSmallRegions(const std::vector<float> &map, const ImageSize &size, const DecisionRule &rule) {
  std::vector<float> kept = map;
  if (rule.min_area == 1) return kept;
  ForEachSpot(map.data(), size, *rule.threshold, [&](const Spot &spot) {
    if (spot.pixels.size() >= rule.min_area) return;
    for (const size_t pixel : spot.pixels) kept[pixel] = 0.0F;
  });
  return kept;
}

}  // namespace stpm
