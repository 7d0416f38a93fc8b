// The lines that tell of pictures: as scores.csv and predictions.json of src/predict.py, with times.
#ifndef STPM_INC_LINES_H_
#define STPM_INC_LINES_H_

#include <cstdint>
#include <string>

#include "inc/inspector.h"

namespace stpm {

enum class Format { kCsv, kJsonl };

// Returns the line that stands first, with its end; nothing where there is none.
//   has_deadline: whether lines say which pictures were late
std::string HeaderLine(Format format, bool has_deadline);

// Returns a picture's line, with its end. CSV: file, score, relative_score, verdict, regions (their number), error,
// decode_ms, inference_ms and, with a deadline, late (0 or 1). JSON: the same, of an error without what it lacks, and
// of regions boxes, area and score of each.
std::string PictureLine(const Inspection &inspection, Format format, bool has_deadline, bool is_late);

// A file, or stdout, to which lines are written, each at once.
class LineFile {
 public:
  // Opens a file; "" is stdout. Throws Error.
  //   is_appended: what the file holds stays; else it is emptied
  LineFile(const std::string &path, bool is_appended);
  ~LineFile();
  LineFile(const LineFile &) = delete;
  LineFile &operator=(const LineFile &) = delete;

  // Returns how many bytes the file holds.
  uint64_t Size() const;

  // Throws Error. Of a file, what was written of the line is taken back first, as on a full disk.
  void Write(const std::string &line);

  // Cuts a file to so many bytes. Throws Error.
  void Cut(uint64_t bytes);

 private:
  const std::string path_;
  int fd_;
};

}  // namespace stpm

#endif  // STPM_INC_LINES_H_
