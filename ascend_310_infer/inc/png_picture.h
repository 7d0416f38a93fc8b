// PNG pictures.
#ifndef STPM_INC_PNG_PICTURE_H_
#define STPM_INC_PNG_PICTURE_H_

#include "inc/pixels.h"

namespace stpm {

// Tells whether a file begins as a PNG does.
bool IsPng(const Bytes &file);

// Decodes a PNG; its checksums are checked. Throws Refusal.
Pixels DecodePng(const Bytes &file);

}  // namespace stpm

#endif  // STPM_INC_PNG_PICTURE_H_
