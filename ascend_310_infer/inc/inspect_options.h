// The command line of stpm_inspect.
#ifndef STPM_INC_INSPECT_OPTIONS_H_
#define STPM_INC_INSPECT_OPTIONS_H_

#include <chrono>
#include <optional>
#include <string>

#include "inc/lines.h"
#include "inc/options.h"

namespace stpm {

enum class Overlay { kNone, kDefective, kAll };
enum class After { kKeep, kMove, kDelete };

struct InspectOptions {
  Options model;  // its flags, and those that all programs have
  std::string images;
  std::string watch;
  bool is_stdin = false;
  std::string out;  // "": stdout
  Format format = Format::kCsv;
  Overlay overlay = Overlay::kNone;
  std::string overlay_dir;
  After after = After::kKeep;
  std::string after_dir;  // where watched files are moved to
  std::string journal;    // which watched files have been reported
  std::chrono::milliseconds poll{0};
  size_t decoders = 0;             // ParseInspectOptions replaces 0 by the number of cores
  std::optional<double> deadline;  // milliseconds
  size_t report_every = 1000;      // pictures; 0: never
};

// Returns the text of --help.
std::string InspectUsage(const std::string &program);

// Parses the command line. Throws UsageError, which names the flag and the value and says what would be right.
InspectOptions ParseInspectOptions(int argc, char *const argv[]);

}  // namespace stpm

#endif  // STPM_INC_INSPECT_OPTIONS_H_
