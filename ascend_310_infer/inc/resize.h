// Resizing as PIL's LANCZOS of src/data/images.py does it, to the same bytes.
#ifndef STPM_INC_RESIZE_H_
#define STPM_INC_RESIZE_H_

#include "inc/image.h"

namespace stpm {

// Returns the part of an image in a box, which must lie within it and not be empty. Throws Error if it does not.
ImageView Cut(const ImageView &image, const Box &box);

// Resizes an image that is not empty in two passes, width first, each to whole numbers of 8 bits; a pass that changes
// nothing is left out.
Image Resize(const ImageView &image, size_t width, size_t height);

}  // namespace stpm

#endif  // STPM_INC_RESIZE_H_
