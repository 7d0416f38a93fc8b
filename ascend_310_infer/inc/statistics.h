// How a run goes: how many pictures had which verdict, how long they took.
#ifndef STPM_INC_STATISTICS_H_
#define STPM_INC_STATISTICS_H_

#include <cstddef>
#include <string>
#include <vector>

#include "inc/decision.h"
#include "inc/source.h"

namespace stpm {

class Statistics {
 public:
  // rule: its verdicts are counted, none without a threshold
  explicit Statistics(const DecisionRule &rule);

  // Counts a picture, which took so long from being taken up to its line.
  void Add(const std::string &verdict, double milliseconds, bool is_late);

  size_t pictures() const { return pictures_; }
  size_t unreadable() const { return unreadable_; }

  // Returns "1000 pictures: p50 31.0 ms, p99 44.1 ms, 31.2 a second", of the pictures since the last call; the last
  // 10,000 of them give the percentiles.
  std::string Interval();

  // Returns "12 images, 0 unreadable, 10 good, 2 defective", with what else is worth saying.
  std::string Summary() const;

 private:
  std::vector<std::pair<std::string, size_t>> counts_;  // by verdict
  size_t pictures_ = 0, unreadable_ = 0, late_ = 0;
  size_t interval_pictures_ = 0;
  Clock::time_point interval_start_ = Clock::now();
  std::vector<double> latest_;  // milliseconds, a ring
  size_t next_ = 0;             // place in it
};

}  // namespace stpm

#endif  // STPM_INC_STATISTICS_H_
