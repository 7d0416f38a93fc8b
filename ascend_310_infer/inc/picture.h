// Picture files: PNG, JPEG, BMP, TIFF, read or refused by the rules of src/data/decoding.py, to the same bytes.
#ifndef STPM_INC_PICTURE_H_
#define STPM_INC_PICTURE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "inc/image.h"

namespace stpm {

// What is worth saying of a picture that is read. Of each kind ("orientation", "bits") the first is enough.
struct Remark {
  std::string kind;
  std::string sentence;
};

struct Picture {
  Image image;
  std::vector<Remark> remarks;
};

// Reads a file as an image, upright and on black where it is transparent. Throws Error, which names the file, if it
// is missing, no picture, damaged, of a kind that is not read, or has more pixels than STPM_MAX_PIXELS of the
// environment. Threads may call this at the same time.
Picture ReadPicture(const std::string &path);

// Does the same with what is in memory; errors name it as name.
Picture DecodePicture(const std::string &name, const uint8_t *data, size_t size);

}  // namespace stpm

#endif  // STPM_INC_PICTURE_H_
