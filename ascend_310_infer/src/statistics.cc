#include "inc/statistics.h"

#include "inc/inspector.h"
#include "inc/pipeline.h"
#include "inc/utils.h"

namespace stpm {
namespace {

constexpr size_t kLatest = 10000;

}  // namespace

Statistics::Statistics(const DecisionRule &rule) {
  if (!rule.threshold) return;
  counts_.emplace_back("good", 0);
  if (rule.review) counts_.emplace_back("review", 0);
  counts_.emplace_back("defective", 0);
}

void Statistics::Add(const std::string &verdict, double milliseconds, bool is_late) {
  ++pictures_;
  ++interval_pictures_;
  if (verdict == kErrorVerdict) ++unreadable_;
  if (is_late) ++late_;
  for (auto &[name, count] : counts_) {
    if (verdict == name) ++count;
  }
  if (latest_.size() < kLatest) {
    latest_.push_back(milliseconds);
  } else {
    latest_[next_] = milliseconds;
    next_ = (next_ + 1) % kLatest;
  }
}

std::string Statistics::Interval() {
  const double seconds = std::chrono::duration<double>(Clock::now() - interval_start_).count();
  const Latency latency = latest_.empty() ? Latency() : Summarise(latest_);
  const std::string text = std::to_string(interval_pictures_) + " pictures: p50 " + Fixed(latency.median, 1) +
                           " ms, p99 " + Fixed(latency.p99, 1) + " ms, " +
                           Fixed(static_cast<double>(interval_pictures_) / seconds, 1) + " a second";
  interval_pictures_ = 0;
  interval_start_ = Clock::now();
  latest_.clear();
  next_ = 0;
  return text;
}

std::string Statistics::Summary() const {
  std::string text = std::to_string(pictures_) + " images, " + std::to_string(unreadable_) + " unreadable";
  for (const auto &[name, count] : counts_) text += ", " + std::to_string(count) + " " + name;
  if (late_ > 0) text += ", " + std::to_string(late_) + " late";
  return text;
}

}  // namespace stpm
