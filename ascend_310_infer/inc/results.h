// What becomes of a picture that has been inspected: its overlay, its line, its file.
#ifndef STPM_INC_RESULTS_H_
#define STPM_INC_RESULTS_H_

#include <atomic>
#include <functional>
#include <string>

#include "inc/inspect_options.h"
#include "inc/inspector.h"
#include "inc/journal.h"
#include "inc/lines.h"
#include "inc/statistics.h"

namespace stpm {

// Writes a picture that shows an inspection to a path. Throws Error.
using Draw = std::function<void(const Inspection &, const std::string &path)>;

class Results {
 public:
  // Opens the file of the lines; of a watch it goes on where it, or one that was killed, ended. Throws Error.
  //   journal: of a watch, else nullptr
  Results(const InspectOptions &options, const DecisionRule &rule, Journal *journal, Draw draw);

  // Deals with one picture: overlay first, then the line, then what --after says. What fails of the first or the last
  // is told on stderr and counted. Throws Error: the line cannot be written.
  void Take(const Inspection &inspection);

  // Moves or deletes a file that has been reported.
  void PutAway(const Job &job);

  const Statistics &statistics() const { return statistics_; }
  size_t failures() const { return failures_; }  // overlays that were not written, files that were not put away

 private:
  void Show(const Inspection &inspection);
  bool Move(const Job &job) const;

  const InspectOptions &options_;
  Journal *const journal_;
  const Draw draw_;
  LineFile lines_;
  Statistics statistics_;
  std::atomic<size_t> failures_ = 0;
};

}  // namespace stpm

#endif  // STPM_INC_RESULTS_H_
