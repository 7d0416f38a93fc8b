#include "inc/inspector.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <future>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <utility>

#include "inc/bounded_queue.h"

namespace stpm {
namespace {

double MillisecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// A picture on its way.
struct Item {
  Inspection result;
  Prepared prepared;
  std::promise<void> decoded;
  std::future<void> is_decoded = decoded.get_future();
};

using Slot = std::shared_ptr<Item>;

// Four kinds of threads: one asks the source, some decode, the caller's infers, one hands the results on.
class Run {
 public:
  Run(Engine *engine, const DecisionRule &rule, Source *source, const Stop *stop, size_t decoders,
      const Prepare &prepare, const Take &take)
      : engine_(engine),
        rule_(rule),
        source_(source),
        stop_(stop),
        prepare_(prepare),
        take_(take),
        images_(engine->batch_size() * engine->input_floats()),
        maps_(engine->batch_size() * engine->output_floats()),
        to_decode_(decoders + engine->batch_size()),
        to_infer_(decoders + engine->batch_size()),
        to_take_(engine->batch_size()),
        decoders_(decoders) {}

  void Execute() {
    Guard(&Run::Start);
    Guard(&Run::Infer);
    for (std::thread &thread : threads_) thread.join();
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void Start() {
    threads_.emplace_back([this] { Guard(&Run::Ask); });
    for (size_t i = 0; i < decoders_; ++i) threads_.emplace_back([this] { Guard(&Run::Decode); });
    threads_.emplace_back([this] { Guard(&Run::HandOn); });
  }

  // Does one thread's work; what it throws ends all.
  void Guard(void (Run::*work)()) {
    try {
      (this->*work)();
    } catch (...) {
      {
        const std::lock_guard<std::mutex> lock(error_mutex_);
        if (!error_) error_ = std::current_exception();
      }
      stop_->Set();
      to_infer_.Abort();
      to_take_.Abort();
      has_failed_ = true;  // after this nothing that was passed through unread can be handed on
      to_decode_.Close();  // not aborted: somebody may wait for what is in it
    }
  }

  void Ask() {
    while (std::optional<Job> job = source_->Next()) {
      const Slot item = std::make_shared<Item>();
      item->result.job = std::move(*job);
      if (!to_decode_.Push(item) || !to_infer_.Push(item)) break;
    }
    to_decode_.Close();
    to_infer_.Close();
  }

  void Decode() {
    while (const std::optional<Slot> slot = to_decode_.Pop()) {
      Item *const item = slot->get();
      const Clock::time_point start = Clock::now();
      try {
        if (!has_failed_) item->prepared = prepare_(item->result.job);
      } catch (const Error &error) {
        item->result.error = error.what();
      } catch (const std::bad_alloc &) {
        item->result.error = item->result.job.path + ": not enough memory to decode it";
      } catch (...) {
        item->decoded.set_exception(std::current_exception());
        continue;
      }
      item->result.decode_milliseconds = MillisecondsSince(start);
      item->decoded.set_value();
    }
  }

  void Infer() {
    while (std::optional<Slot> slot = to_infer_.Pop()) {
      std::vector<Slot> batch;
      size_t images = 0;
      for (; slot; slot = images < engine_->batch_size() ? to_infer_.TryPop() : std::nullopt) {
        (*slot)->is_decoded.get();
        batch.push_back(*slot);
        if (!(*slot)->result.error.empty()) continue;
        std::copy((*slot)->prepared.input.begin(), (*slot)->prepared.input.end(), ImageAt(images++));
        std::vector<float>().swap((*slot)->prepared.input);
      }
      const double milliseconds = images == 0 ? 0.0 : Call(images);
      size_t place = 0;
      for (const Slot &item : batch) {
        if (item->result.error.empty()) {
          item->result.inference_milliseconds = milliseconds;
          item->result.map.assign(MapAt(place), MapAt(place + 1));
          ++place;
        }
        if (!to_take_.Push(item)) return;
      }
    }
    to_take_.Close();
  }

  std::vector<float>::iterator ImageAt(size_t place) {
    return images_.begin() + static_cast<std::ptrdiff_t>(place * engine_->input_floats());
  }

  std::vector<float>::const_iterator MapAt(size_t place) const {
    return maps_.begin() + static_cast<std::ptrdiff_t>(place * engine_->output_floats());
  }

  // Infers so many images, and the last one again for every place that is left; returns the milliseconds.
  double Call(size_t images) {
    for (size_t place = images; place < engine_->batch_size(); ++place) {
      std::copy_n(ImageAt(images - 1), engine_->input_floats(), ImageAt(place));
    }
    const Clock::time_point start = Clock::now();
    engine_->Infer(images_.data(), maps_.data());
    return MillisecondsSince(start);
  }

  void HandOn() {
    while (const std::optional<Slot> slot = to_take_.Pop()) {
      Inspection *const result = &(*slot)->result;
      const std::vector<float> &map = result->map;
      if (!map.empty() && !IsFinite(map.data(), engine_->image_size())) {
        result->error = result->job.path + ": its anomaly map holds NaN or infinity";
        result->map.clear();
      }
      if (result->error.empty()) {
        result->finding = Judge(map.data(), engine_->image_size(), rule_, (*slot)->prepared.box);
        result->seen = std::move((*slot)->prepared.seen);
      } else {
        result->finding.verdict = kErrorVerdict;
      }
      take_(*result);
    }
  }

  Engine *const engine_;
  const DecisionRule &rule_;
  Source *const source_;
  const Stop *const stop_;
  const Prepare &prepare_;
  const Take &take_;
  std::vector<float> images_, maps_;  // of the thread that infers
  BoundedQueue<Slot> to_decode_, to_infer_, to_take_;
  const size_t decoders_;
  std::atomic<bool> has_failed_ = false;
  std::mutex error_mutex_;
  std::exception_ptr error_;  // the first one
  std::vector<std::thread> threads_;
};

}  // namespace

bool IsFinite(const float *map, const ImageSize &size) {
  return std::all_of(map, map + size.pixels(), [](float value) { return std::isfinite(value); });
}

Finding Judge(const float *map, const ImageSize &size, const DecisionRule &rule, const Box &box) {
  Finding finding;
  finding.score = rule.Score(map, size);
  if (rule.threshold) {
    finding.relative_score = rule.Relative(finding.score);
    finding.verdict = rule.Verdict(finding.score);
    finding.regions = FindRegions(map, size, rule, box);
  }
  return finding;
}

void Inspect(Engine *engine, const DecisionRule &rule, Source *source, const Stop *stop, size_t decoders,
             const Prepare &prepare, const Take &take) {
  Run(engine, rule, source, stop, decoders, prepare, take).Execute();
}

}  // namespace stpm
