#include "inc/lines.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>

#include "inc/json.h"
#include "inc/utils.h"

namespace stpm {
namespace {

constexpr int kDecimals = 2;  // of milliseconds

std::string CsvLine(const Inspection &inspection) {
  const Finding &finding = inspection.finding;
  const bool has_score = inspection.error.empty();
  return CsvField(inspection.job.file) + "," + (has_score ? Exact(finding.score) : "") + "," +
         (finding.relative_score ? Exact(*finding.relative_score) : "") + "," + finding.verdict + "," +
         std::to_string(finding.regions.size()) + "," + CsvField(inspection.error) + "," +
         Fixed(inspection.decode_milliseconds, kDecimals) + "," + Fixed(inspection.inference_milliseconds, kDecimals);
}

// JSON has no infinity, which a tiny threshold can lead to.
std::string Number(float value) { return std::isfinite(value) ? Exact(value) : "null"; }

std::string RegionText(const Region &region) {
  const auto pair = [](const char *name, size_t value) {
    return "\"" + std::string(name) + "\": " + std::to_string(value) + ", ";
  };
  return "{" + pair("x", region.x) + pair("y", region.y) + pair("width", region.width) + pair("height", region.height) +
         pair("area", region.area) + "\"score\": " + Number(region.score) + "}";
}

std::string JsonLine(const Inspection &inspection) {
  const Finding &finding = inspection.finding;
  std::string text = "{\"file\": " + JsonString(inspection.job.file);
  if (inspection.error.empty()) {
    text += ", \"score\": " + Number(finding.score) +
            ", \"relative_score\": " + (finding.relative_score ? Number(*finding.relative_score) : "null");
  }
  text += ", \"verdict\": " + (finding.verdict.empty() ? "null" : JsonString(finding.verdict));
  if (inspection.error.empty()) {
    std::string regions;
    for (const Region &region : finding.regions) regions += (regions.empty() ? "" : ", ") + RegionText(region);
    text += ", \"regions\": [" + regions + "]";
  } else {
    text += ", \"error\": " + JsonString(inspection.error);
  }
  text += ", \"decode_ms\": " + Fixed(inspection.decode_milliseconds, kDecimals);
  return text + ", \"inference_ms\": " + Fixed(inspection.inference_milliseconds, kDecimals);
}

}  // namespace

std::string HeaderLine(Format format, bool has_deadline) {
  if (format == Format::kJsonl) return "";
  const std::string names = "file,score,relative_score,verdict,regions,error,decode_ms,inference_ms";
  return names + (has_deadline ? ",late\n" : "\n");
}

std::string PictureLine(const Inspection &inspection, Format format, bool has_deadline, bool is_late) {
  if (format == Format::kCsv) return CsvLine(inspection) + (!has_deadline ? "\n" : is_late ? ",1\n" : ",0\n");
  const std::string late = std::string(", \"late\": ") + (is_late ? "true" : "false");
  return JsonLine(inspection) + (has_deadline ? late : "") + "}\n";
}

LineFile::LineFile(const std::string &path, bool is_appended) : path_(path), fd_(STDOUT_FILENO) {
  if (path.empty()) return;
  const int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (is_appended ? 0 : O_TRUNC);
  fd_ = ::open(path.c_str(), flags, 0666);
  if (fd_ < 0) throw Error(path + ": cannot be written: " + std::strerror(errno));
}

LineFile::~LineFile() {
  if (fd_ != STDOUT_FILENO) ::close(fd_);
}

uint64_t LineFile::Size() const {
  struct stat status = {};
  if (::fstat(fd_, &status) != 0) throw Error(path_ + ": cannot be read: " + std::strerror(errno));
  return static_cast<uint64_t>(status.st_size);
}

void LineFile::Write(const std::string &line) {
  const bool is_file = !path_.empty();
  const uint64_t before = is_file ? Size() : 0;
  if (WriteAll(fd_, line.data(), line.size())) return;
  const std::string problem = std::strerror(errno);
  // best effort: if it fails, too, the journal tells on the next start
  if (is_file && ::ftruncate(fd_, static_cast<off_t>(before)) != 0) errno = 0;
  throw Error((is_file ? path_ : "stdout") + ": cannot be written: " + problem);
}

void LineFile::Cut(uint64_t bytes) {
  if (::ftruncate(fd_, static_cast<off_t>(bytes)) != 0) {
    throw Error(path_ + ": cannot be cut: " + std::strerror(errno));
  }
}

}  // namespace stpm
