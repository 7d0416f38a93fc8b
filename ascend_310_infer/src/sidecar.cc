#include "inc/sidecar.h"

#include <sys/stat.h>

#include <cmath>
#include <limits>

#include "inc/json.h"
#include "inc/options.h"
#include "inc/utils.h"

namespace stpm {
namespace {

constexpr double kFormat = 1.0;  // as FORMAT in src/model/sidecar.py
constexpr char kPattern[] = "pattern-1";
// As PREPROCESSING and FORMER_PREPROCESSING in src/model/sidecar.py.
constexpr char kPreprocessing[] = R"({"colour": "RGB", "resize": "LANCZOS", "resize_passes": ["width", "height"],
  "scale": 0.00392156862745098, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
  "layout": "NCHW", "dtype": "float32"})";
constexpr char kFormerPreprocessing[] = R"({"colour": "RGB", "resize": "LANCZOS",
  "scale": 0.00392156862745098, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
  "layout": "NCHW", "dtype": "float32"})";

std::string NameOf(const std::string &path) { return path.substr(path.find_last_of('/') + 1); }

// A key's value if it is of this kind; nullptr if not.
const Json *Find(const Json &object, const char *key, Json::Kind kind) {
  const Json *const value = object.Find(key);
  return value != nullptr && value->kind == kind ? value : nullptr;
}

bool IsWhole(const Json &value, double least, double most) {
  return value.kind == Json::Kind::kNumber && value.number >= least && value.number <= most &&
         value.number == std::floor(value.number);
}

// Returns what is written as height and width, or as a square's side; nothing if it is neither.
std::optional<ImageSize> ParseImageSize(const Json &json) {
  std::vector<size_t> sides;
  for (const Json &side : json.kind == Json::Kind::kArray ? json.values : std::vector<Json>(2, json)) {
    if (!IsWhole(side, 1, 4096)) return std::nullopt;
    sides.push_back(static_cast<size_t>(side.number));
  }
  if (sides.size() != 2) return std::nullopt;
  return ImageSize{sides[0], sides[1]};
}

std::optional<ImageSize> ReadImageSize(const std::string &path, const Json &content) {
  const Json *const json = content.Find("image_size");
  if (json == nullptr) return std::nullopt;
  const std::optional<ImageSize> size = ParseImageSize(*json);
  const auto is_side = [](size_t side) { return side >= 32 && side % 16 == 0; };
  if (!size || !is_side(size->height) || !is_side(size->width)) {
    throw Error(path + ": image_size is wrong, expected a multiple of 16; export the model again");
  }
  return size;
}

std::optional<Box> ReadRoi(const std::string &path, const Json &content) {
  constexpr double kMost = 2147483647.0;
  const Json *const roi = content.Find("roi");
  if (roi == nullptr || roi->kind == Json::Kind::kNull) return std::nullopt;
  std::vector<size_t> sides;
  for (const Json &side : roi->values) {
    const double least = sides.size() < 2 ? 0.0 : 1.0;
    if (roi->kind == Json::Kind::kArray && IsWhole(side, least, kMost))
      sides.push_back(static_cast<size_t>(side.number));
  }
  if (sides.size() != 4 || roi->values.size() != 4) {
    throw Error(path + ": roi is wrong, expected x, y, width and height; export the model again");
  }
  return Box{sides[0], sides[1], sides[2], sides[3]};
}

Preprocessing ReadPreprocessing(const Json &content) {
  const Json *const preprocessing = content.Find("preprocessing");
  if (preprocessing == nullptr) return Preprocessing::kUnknown;
  if (*preprocessing == ParseJson(kPreprocessing)) return Preprocessing::kPresent;
  return *preprocessing == ParseJson(kFormerPreprocessing) ? Preprocessing::kFormer : Preprocessing::kUnknown;
}

std::optional<float> ParseThreshold(const std::string &path, const Json &content) {
  const Json *const threshold = content.Find("threshold");
  if (threshold == nullptr || threshold->kind == Json::Kind::kNull) return std::nullopt;
  if (threshold->kind != Json::Kind::kNumber || !IsThreshold(threshold->number)) {
    throw Error(path + ": threshold is wrong, expected null or a number from " + kThresholdLimits);
  }
  return static_cast<float>(threshold->number);
}

DecisionRule ParseRule(const std::string &path, const Json &content) {
  DecisionRule rule;
  rule.threshold = ParseThreshold(path, content);
  if (const Json *const area = content.Find("min_area")) {
    if (!IsWhole(*area, 1, 4096.0 * 4096.0)) {
      throw Error(path + ": min_area is wrong, expected a number of pixels, at least 1");
    }
    rule.min_area = static_cast<size_t>(area->number);
  }
  const Json *const review = content.Find("review");
  if (review != nullptr && review->kind != Json::Kind::kNull) {
    if (review->kind != Json::Kind::kNumber || !IsShare(review->number)) {
      throw Error(path + ": review is wrong, expected a number above 0 and below 1");
    }
    rule.review = static_cast<float>(review->number);
  }
  return rule;
}

// Throws Error unless this is a number that can be a value of a map.
double ParseValue(const Json &value, const Error &error) {
  if (value.kind != Json::Kind::kNumber || std::abs(value.number) > std::numeric_limits<float>::max()) throw error;
  return value.number;
}

std::optional<SelfTest> ParseSelfTest(const std::string &path, const Json &content) {
  const Json *const json = content.Find("selftest");
  if (json == nullptr) return std::nullopt;
  const Error error(path + ": selftest is damaged; export the model again");
  const Json *const input = Find(*json, "input", Json::Kind::kString);
  const Json *const size = json->Find("image_size"), *const score = json->Find("score");
  const Json *const map = Find(*json, "map", Json::Kind::kArray);
  if (input == nullptr || size == nullptr || score == nullptr || map == nullptr || map->values.empty()) throw error;
  if (input->text != kPattern) {
    throw Error(path + ": selftest has the input '" + input->text + "', this program makes " + kPattern +
                "; export the model with the release that the program is of");
  }
  const std::optional<ImageSize> image_size = ParseImageSize(*size);
  if (!image_size) throw error;
  SelfTest test;
  test.image_size = *image_size;
  test.score = ParseValue(*score, error);
  const auto last_row = static_cast<double>(image_size->height - 1);
  const auto last_column = static_cast<double>(image_size->width - 1);
  double largest = 0.0;
  for (const Json &place : map->values) {
    const bool is_place = place.kind == Json::Kind::kArray && place.values.size() == 3 &&
                          IsWhole(place.values[0], 0, last_row) && IsWhole(place.values[1], 0, last_column);
    if (!is_place) throw error;
    test.map.push_back({static_cast<size_t>(place.values[0].number), static_cast<size_t>(place.values[1].number),
                        ParseValue(place.values[2], error)});
    largest = std::max(largest, std::abs(test.map.back().value));
  }
  if (!(test.score > 0.0) || !(largest > 0.0)) throw error;  // what differences are relative to
  return test;
}

void CheckModel(const std::string &model_path, const std::string &path, const Json &content) {
  const std::string name = NameOf(model_path);
  const Json *const exports = content.Find("exports");
  const Json *const facts = exports == nullptr ? nullptr : exports->Find(name);
  const Json *const sha256 = facts == nullptr ? nullptr : facts->Find("sha256");
  if (sha256 == nullptr) throw Error(path + ": does not describe " + name + "; export it again");
  if (sha256->kind != Json::Kind::kString || sha256->text != FileSha256(model_path)) {
    throw Error(model_path + ": is damaged, or is not the file that " + NameOf(path) + " describes; export it again");
  }
}

Json ReadJson(const std::string &path) {
  const std::string text = ReadText(path);
  try {
    return ParseJson(text);
  } catch (const Error &error) {
    throw Error(path + ": not valid JSON: " + error.what());
  }
}

}  // namespace

std::string SidecarPath(const std::string &model_path) {
  const size_t name = model_path.find_last_of('/') + 1, dot = model_path.find_last_of('.');
  const bool has_suffix = dot != std::string::npos && dot > name;
  return (has_suffix ? model_path.substr(0, dot) : model_path) + ".json";
}

Sidecar ReadSidecar(const std::string &model_path) {
  const std::string path = SidecarPath(model_path);
  Sidecar sidecar;
  struct stat status = {};
  if (::lstat(path.c_str(), &status) != 0) {  // a link that leads nowhere is no absence
    sidecar.warning = path + ": is missing, so that " + NameOf(model_path) +
                      " is used unchecked; export.py writes it, keep the two together";
    return sidecar;
  }
  const Json content = ReadJson(path);
  const Json *const format = content.Find("format");
  if (format == nullptr || format->kind != Json::Kind::kNumber || format->number != kFormat) {
    throw Error(path + ": is not of format 1, which export.py writes; export the model again");
  }
  CheckModel(model_path, path, content);
  sidecar.image_size = ReadImageSize(path, content);
  sidecar.roi = ReadRoi(path, content);
  sidecar.preprocessing = ReadPreprocessing(content);
  sidecar.rule = ParseRule(path, content);
  sidecar.selftest = ParseSelfTest(path, content);
  return sidecar;
}

}  // namespace stpm
