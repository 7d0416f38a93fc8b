// How a picture must be turned to be upright, from EXIF or XMP.
#ifndef STPM_INC_ORIENTATION_H_
#define STPM_INC_ORIENTATION_H_

#include <optional>
#include <string>

#include "inc/pixels.h"

namespace stpm {

// Sets the orientation of pixels by what metadata say; without a word, and where they are damaged, 1. The first of what
// was wrong with them becomes a remark.
//   exif: a TIFF, perhaps behind Exif's name; empty if there is none
//   problems: what was wrong with other metadata
void SetOrientation(const Bytes &exif, const Bytes &xmp, std::vector<std::string> problems, Pixels *pixels);

// Does the same with an orientation that was read already, if there is one.
void SetOrientation(std::optional<int64_t> value, std::vector<std::string> problems, Pixels *pixels);

}  // namespace stpm

#endif  // STPM_INC_ORIENTATION_H_
