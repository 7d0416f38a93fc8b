#include "inc/orientation.h"

#include <algorithm>
#include <cstring>

#include "inc/tiff_tags.h"

namespace stpm {
namespace {

constexpr char kExifName[] = "Exif\0";  // and the NUL at the end of this
constexpr size_t kExifNameSize = sizeof(kExifName);

// Returns what EXIF says. is_said tells that it says something, if only what is no number.
std::optional<int64_t> OrientationOfExif(Bytes exif, std::vector<std::string> *problems, bool *is_said) {
  for (int names = 0; names < 2; ++names) {
    if (!exif.Has(0, kExifNameSize) || std::memcmp(exif.data, kExifName, kExifNameSize) != 0) break;
    exif = {exif.data + kExifNameSize, exif.size - kExifNameSize};
  }
  if (exif.size == 0) return std::nullopt;
  const std::optional<TiffHeader> header = ReadTiffHeader(exif);
  if (!header || header->is_big_tiff) {
    problems->push_back("EXIF that cannot be read");
    return std::nullopt;
  }
  const TiffTags tags(exif, *header, header->first);
  *is_said = tags.Has(kOrientationTag);
  if (*is_said && !tags.AnyInteger(kOrientationTag)) {
    problems->push_back("an orientation that is no whole number, which is none of 1 to 8");
  }
  return tags.AnyInteger(kOrientationTag);
}

// Finds tiff:Orientation="6" or <tiff:Orientation>6.
std::optional<int64_t> OrientationOfXmp(const Bytes &xmp) {
  static const std::string name = "tiff:Orientation";
  const uint8_t *const end = xmp.data + xmp.size;
  for (const uint8_t *at = xmp.data; at != end; ++at) {
    at = std::search(at, end, name.begin(), name.end());
    if (at == end) break;
    const uint8_t *value = at + name.size();
    if (end - value >= 2 && value[0] == '=' && value[1] == '"') {
      value += 2;
    } else if (end - value >= 1 && value[0] == '>') {
      value += 1;
    } else {
      continue;
    }
    if (value != end && '0' <= *value && *value <= '9') return *value - '0';
  }
  return std::nullopt;
}

}  // namespace

void SetOrientation(const Bytes &exif, const Bytes &xmp, std::vector<std::string> problems, Pixels *pixels) {
  bool is_said = false;
  std::optional<int64_t> value = OrientationOfExif(exif, &problems, &is_said);
  if (!is_said) value = OrientationOfXmp(xmp);
  SetOrientation(value, std::move(problems), pixels);
}

void SetOrientation(std::optional<int64_t> value, std::vector<std::string> problems, Pixels *pixels) {
  if (value && 1 <= *value && *value <= 8) {
    pixels->orientation = static_cast<int>(*value);
    return;
  }
  if (value) {
    problems.push_back("an orientation " + std::to_string(*value) + ", which is none of 1 to 8");
  }
  if (!problems.empty()) {
    pixels->remarks.push_back({"orientation", "has " + problems.front() + "; it is read as it lies in the file"});
  }
}

}  // namespace stpm
