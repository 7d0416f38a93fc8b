// JPEG pictures.
#ifndef STPM_INC_JPEG_PICTURE_H_
#define STPM_INC_JPEG_PICTURE_H_

#include "inc/pixels.h"

namespace stpm {

// Tells whether a file begins as a JPEG does.
bool IsJpeg(const Bytes &file);

// Decodes the main picture of a JPEG. Throws Refusal.
Pixels DecodeJpeg(const Bytes &file);

}  // namespace stpm

#endif  // STPM_INC_JPEG_PICTURE_H_
