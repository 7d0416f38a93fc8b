// TIFF pictures.
#ifndef STPM_INC_TIFF_PICTURE_H_
#define STPM_INC_TIFF_PICTURE_H_

#include "inc/pixels.h"

namespace stpm {

// Tells whether a file begins as a TIFF does.
bool IsTiff(const Bytes &file);

// Decodes the one page of a TIFF. Throws Refusal.
Pixels DecodeTiff(const Bytes &file);

}  // namespace stpm

#endif  // STPM_INC_TIFF_PICTURE_H_
