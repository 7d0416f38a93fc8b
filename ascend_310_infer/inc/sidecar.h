// The JSON file that export.py writes beside a model.
#ifndef STPM_INC_SIDECAR_H_
#define STPM_INC_SIDECAR_H_

#include <string>

namespace stpm {

// Returns where the JSON file of a model stands: "a/b.mindir" -> "a/b.json".
std::string SidecarPath(const std::string &model_path);

// Checks a model's SHA-256 against the JSON file beside it; the library can crash on a damaged model. Returns a
// warning if there is no such file, as for models that other tools converted; else "". Throws Error: the JSON file is
// damaged or does not describe the model, or the model is not the one that it describes.
std::string CheckAgainstSidecar(const std::string &model_path);

}  // namespace stpm

#endif  // STPM_INC_SIDECAR_H_
