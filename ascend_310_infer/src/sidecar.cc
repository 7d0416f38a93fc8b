#include "inc/sidecar.h"

#include <sys/stat.h>

#include "inc/json.h"
#include "inc/utils.h"

namespace stpm {
namespace {

constexpr double kFormat = 1.0;  // as FORMAT in src/model/sidecar.py

std::string NameOf(const std::string &path) { return path.substr(path.find_last_of('/') + 1); }

Json ReadSidecar(const std::string &path) {
  const std::string text = ReadText(path);
  try {
    return ParseJson(text);
  } catch (const Error &error) {
    throw Error(path + ": not valid JSON: " + error.what());
  }
}

}  // namespace

std::string SidecarPath(const std::string &model_path) {
  const size_t name = model_path.find_last_of('/') + 1, dot = model_path.find_last_of('.');
  const bool has_suffix = dot != std::string::npos && dot > name;
  return (has_suffix ? model_path.substr(0, dot) : model_path) + ".json";
}

std::string CheckAgainstSidecar(const std::string &model_path) {
  const std::string path = SidecarPath(model_path), name = NameOf(model_path);
  struct stat status = {};
  if (::lstat(path.c_str(), &status) != 0) {  // a link that leads nowhere is no absence
    return path + ": is missing, so that " + name + " is used unchecked; export.py writes it, keep the two together";
  }
  const Json content = ReadSidecar(path);
  const Json *const format = content.Find("format");
  if (format == nullptr || format->kind != Json::Kind::kNumber || format->number != kFormat) {
    throw Error(path + ": is not of format 1, which export.py writes; export the model again");
  }
  const Json *const exports = content.Find("exports");
  const Json *const facts = exports == nullptr ? nullptr : exports->Find(name);
  const Json *const sha256 = facts == nullptr ? nullptr : facts->Find("sha256");
  if (sha256 == nullptr) throw Error(path + ": does not describe " + name + "; export it again");
  if (sha256->kind != Json::Kind::kString || sha256->text != FileSha256(model_path)) {
    throw Error(model_path + ": is damaged, or is not the file that " + NameOf(path) + " describes; export it again");
  }
  return "";
}

}  // namespace stpm
