#include "inc/decision.h"

#include <algorithm>
#include <random>
#include <vector>

#include "tests/check.h"

namespace stpm {
namespace {

float ScoreOf(const std::vector<float> &map, const ImageSize &size, size_t min_area) {
  DecisionRule rule;
  rule.min_area = min_area;
  return rule.Score(map.data(), size);
}

void TestArea() {
  const ImageSize size = {3, 5};
  const std::vector<float> map = {
      9, 0, 0, 0, 5,  //
      0, 0, 6, 0, 4,  //
      0, 7, 0, 0, 5,
  };
  const float expected[] = {9, 6, 4, 0, 0, 0};
  for (size_t area = 1; area <= 6; ++area) CHECK(ScoreOf(map, size, area) == expected[area - 1]);
  CHECK(ScoreOf(map, size, 15) == 0 && ScoreOf(map, size, 16) == 0);
  // neither around the edge nor from one row's end to the next row
  CHECK(ScoreOf({1, 0, 0, 1, 1, 0, 0, 1}, {2, 4}, 3) == 0 && ScoreOf({0, 0, 1, 1, 0, 0}, {2, 3}, 2) == 0);
}

// The area of the region that a pixel is part of, of those that reach a level.
size_t Flood(const std::vector<float> &map, const ImageSize &size, float level, size_t pixel, std::vector<bool> *seen) {
  if ((*seen)[pixel] || map[pixel] < level) return 0;
  (*seen)[pixel] = true;
  size_t area = 1;
  const size_t row = pixel / size.width, column = pixel % size.width;
  for (size_t y = row == 0 ? 0 : row - 1; y < std::min(row + 2, size.height); ++y) {
    for (size_t x = column == 0 ? 0 : column - 1; x < std::min(column + 2, size.width); ++x) {
      area += Flood(map, size, level, y * size.width + x, seen);
    }
  }
  return area;
}

// By the definition: the highest value of the map at which a region is large enough.
void TestRandomMaps() {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const ImageSize size = {1 + random() % 9, 1 + random() % 9};
    std::vector<float> map(size.pixels());
    for (float &value : map) value = static_cast<float>(random() % 12);
    const size_t area = 1 + random() % size.pixels();
    float expected = -1;
    for (const float level : map) {
      std::vector<bool> seen(size.pixels(), false);
      for (size_t pixel = 0; pixel < size.pixels(); ++pixel) {
        if (Flood(map, size, level, pixel, &seen) >= area) expected = std::max(expected, level);
      }
    }
    CHECK(ScoreOf(map, size, area) == expected);
  }
}

void TestVerdicts() {
  DecisionRule rule;
  rule.threshold = 2.0F;
  CHECK(rule.Verdict(2.0F) == "defective" && rule.Verdict(1.99F) == "good" && rule.Relative(1.0F) == 0.5F);
  rule.review = 0.8F;
  CHECK(rule.Verdict(2.0F) == "defective" && rule.Verdict(1.99F) == "review");
  CHECK(rule.Verdict(1.6F) == "review" && rule.Verdict(1.59F) == "good");
}

}  // namespace
}  // namespace stpm

int main() {
  stpm::TestArea();
  stpm::TestRandomMaps();
  stpm::TestVerdicts();
  return stpm::failures == 0 ? 0 : 1;
}
