// BMP pictures.
#ifndef STPM_INC_BMP_PICTURE_H_
#define STPM_INC_BMP_PICTURE_H_

#include "inc/pixels.h"

namespace stpm {

// Tells whether a file begins as a BMP does.
bool IsBmp(const Bytes &file);

// Decodes a BMP. Throws Refusal.
Pixels DecodeBmp(const Bytes &file);

}  // namespace stpm

#endif  // STPM_INC_BMP_PICTURE_H_
