#include "inc/picture_reader.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "inc/network_input.h"
#include "inc/picture.h"
#include "inc/resize.h"
#include "inc/utils.h"

namespace stpm {
namespace {

std::string Text(const Box &box) {
  return std::to_string(box.x) + "," + std::to_string(box.y) + "," + std::to_string(box.width) + "," +
         std::to_string(box.height);
}

int LargestDifference(const Image &one, const Image &other) {
  int largest = 0;
  for (size_t i = 0; i < one.pixels.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<int>(one.pixels[i]) - static_cast<int>(other.pixels[i])));
  }
  return largest;
}

}  // namespace

PictureReader::PictureReader(const std::string &model_path, const Sidecar &sidecar)
    : model_path_(model_path), roi_(sidecar.roi), may_differ_(sidecar.preprocessing == Preprocessing::kFormer) {
  if (!sidecar.warning.empty()) throw Error(sidecar.warning);
  if (!sidecar.image_size) throw Error(SidecarPath(model_path) + ": holds no image_size; export the model again");
  if (sidecar.preprocessing == Preprocessing::kUnknown) {
    throw Error(SidecarPath(model_path) +
                ": holds no preprocessing that this program does; export the model with its release");
  }
  size_ = *sidecar.image_size;
}

Prepared PictureReader::Read(const std::string &path) {
  const Picture picture = ReadPicture(path);
  for (const Remark &remark : picture.remarks) {
    Tell(remark.kind, path + ": " + remark.sentence + "; said once, of the first such");
  }
  return See(path, picture.image.view());
}

Prepared PictureReader::See(const std::string &name, const ImageView &image) {
  Prepared prepared;
  prepared.box = roi_.value_or(Box{0, 0, image.width, image.height});
  if (prepared.box.x + prepared.box.width > image.width || prepared.box.y + prepared.box.height > image.height) {
    throw Error(name + ": has " + std::to_string(image.width) + "x" + std::to_string(image.height) +
                " pixels (width x height), which do not contain the region of interest " + Text(prepared.box) +
                " (x, y, width, height)");
  }
  const ImageView part = Cut(image, prepared.box);
  prepared.seen = Resize(part, size_.width, size_.height);
  prepared.input.resize(3 * size_.pixels());
  ToNetworkInput(prepared.seen.view(), Normalisation(), prepared.input.data());
  if (part.height > part.width) TellOfFormerResizing(name, part, prepared.seen);
  return prepared;
}

void PictureReader::Tell(const std::string &kind, const std::string &text) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (told_.insert(kind).second) std::fprintf(stderr, "warning: %s\n", text.c_str());
}

// The former resizing is Pillow's one call, which took the height of tall pictures first.
void PictureReader::TellOfFormerResizing(const std::string &name, const ImageView &image, const Image &seen) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!may_differ_) return;
  }
  const int difference =
      LargestDifference(seen, Resize(Resize(image, image.width, size_.height).view(), size_.width, size_.height));
  if (difference == 0) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!may_differ_) return;  // another thread was first
  may_differ_ = false;
  std::fprintf(stderr,
               "warning: %s: was made by a release that resized tall pictures height first; they are now resized width "
               "first, by which %s differs by up to %d of 255; for exact scores make it again; said once\n",
               model_path_.c_str(), name.c_str(), difference);
}

}  // namespace stpm
