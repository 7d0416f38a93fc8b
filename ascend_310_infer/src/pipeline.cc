#include "inc/pipeline.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <future>

namespace stpm {
namespace {

using Clock = std::chrono::steady_clock;

double MillisecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::string JsonMark(const std::string &path) {
  const FileMark mark = MarkFile(path);
  return "{\"bytes\": " + std::to_string(mark.bytes) + ", \"crc32\": " + std::to_string(mark.crc32) + "}";
}

// Returns which model and which inputs the results are of, and how they were scored; inputs of another program may have
// no manifest.
std::string Origin(const Options &options, const DecisionRule &rule) {
  const std::string manifest = Join(options.input_path, kManifestName);
  return "{\"format\": 1, \"model\": " + JsonMark(options.mindir_path) +
         ", \"manifest\": " + (Exists(manifest) ? JsonMark(manifest) : "null") +
         ", \"min_area\": " + std::to_string(rule.min_area) + "}\n";
}

// The inputs of one batch and, after inference, their maps.
struct Batch {
  size_t first = 0;  // index of its first input
  size_t count = 0;  // inputs that are not padding
  double milliseconds = 0.0;
  std::vector<float> images;
  std::vector<float> maps;
};

// What a run knows throughout. Two threads are at work: the caller's infers, and one that lives as long as a call of
// the engine reads and writes files. Each batch is one thread's at a time.
class Run {
 public:
  Run(Engine *engine, const Options &options, const DecisionRule &rule, const std::vector<std::string> &names)
      : engine_(engine), options_(options), rule_(rule), names_(names) {}

  RunSummary Execute() {
    Prepare();
    Batch batches[2];  // one with the engine, one with the files
    for (Batch &batch : batches) {
      batch.images.resize(engine_->batch_size() * engine_->input_floats());
      batch.maps.resize(engine_->batch_size() * engine_->output_floats());
    }
    const size_t count = (names_.size() + engine_->batch_size() - 1) / engine_->batch_size();
    Clock::time_point start = Clock::now();
    Read(0, &batches[0]);
    WarmUp(&batches[0], &start);
    for (size_t i = 0; i < count; ++i) {
      Batch *const now = &batches[i % 2];
      Batch *const other = &batches[(i + 1) % 2];
      std::future<void> files = std::async(std::launch::async, [this, i, count, other] {
        if (i > 0) Write(*other);
        if (i + 1 < count) Read(i + 1, other);
      });
      Infer(now);
      files.get();
    }
    Write(batches[(count - 1) % 2]);
    WriteFile(Join(options_.result_path, kOriginName), origin_.data(), origin_.size());
    WriteFile(Join(options_.result_path, kScoresName), scores_.data(), scores_.size());
    return Summary(MillisecondsSince(start) / 1000.0);
  }

 private:
  // Finds what is wrong with the files before the first inference, and removes the results of an earlier run.
  void Prepare() {
    for (const std::string &name : names_) {
      CheckSize(Join(options_.input_path, name), engine_->input_floats() * sizeof(float));
    }
    RemoveFile(Join(options_.result_path, kScoresName));
    RemoveFile(Join(options_.result_path, kOriginName));
    for (const std::string &name : names_) RemoveFile(Join(options_.result_path, ResultName(name)));
    origin_ = Origin(options_, rule_);
    scores_ = std::string("input,score,milliseconds") + (rule_.threshold ? ",relative_score,verdict\n" : "\n");
  }

  void Read(size_t index, Batch *batch) const {
    const size_t size = engine_->input_floats();
    batch->first = index * engine_->batch_size();
    batch->count = std::min(engine_->batch_size(), names_.size() - batch->first);
    for (size_t i = 0; i < batch->count; ++i) {
      ReadFloats(Join(options_.input_path, names_[batch->first + i]), &batch->images[i * size], size);
    }
    const auto last = batch->images.begin() + static_cast<std::ptrdiff_t>((batch->count - 1) * size);
    for (size_t i = batch->count; i < engine_->batch_size(); ++i) {
      std::copy_n(last, size, batch->images.begin() + static_cast<std::ptrdiff_t>(i * size));
    }
  }

  // Runs uncounted calls, and takes their time out of the total.
  void WarmUp(Batch *batch, Clock::time_point *start) const {
    const Clock::time_point begin = Clock::now();
    for (int i = 0; i < options_.warmup; ++i) engine_->Infer(batch->images.data(), batch->maps.data());
    *start += Clock::now() - begin;
  }

  void Infer(Batch *batch) {
    const Clock::time_point begin = Clock::now();
    engine_->Infer(batch->images.data(), batch->maps.data());
    batch->milliseconds = MillisecondsSince(begin);
    calls_.push_back(batch->milliseconds);
  }

  void Write(const Batch &batch) {
    const size_t size = engine_->output_floats();
    for (size_t i = 0; i < batch.count; ++i) {
      const std::string &name = names_[batch.first + i];
      const float *const map = &batch.maps[i * size];
      if (!std::all_of(map, map + size, [](float value) { return std::isfinite(value); })) {
        throw Error(Join(options_.input_path, name) + ": its anomaly map holds NaN or infinity");
      }
      WriteFile(Join(options_.result_path, ResultName(name)), map, size * sizeof(float));
      const float score = rule_.Score(map, engine_->image_size());
      scores_ += CsvField(name) + "," + Exact(score) + "," + Fixed(batch.milliseconds, 3);
      if (rule_.threshold) scores_ += "," + Exact(rule_.Relative(score)) + "," + rule_.Verdict(score);
      scores_ += '\n';
    }
  }

  RunSummary Summary(double total_seconds) const {
    RunSummary summary;
    summary.images = names_.size();
    summary.batch_size = engine_->batch_size();
    summary.calls = calls_.size();
    summary.call = Summarise(calls_);
    summary.total_seconds = total_seconds;
    const double images = static_cast<double>(names_.size());
    summary.images_per_second = images / total_seconds;
    summary.inference_per_second = images / (summary.call.mean * static_cast<double>(calls_.size()) / 1000.0);
    return summary;
  }

  Engine *const engine_;
  const Options &options_;
  const DecisionRule &rule_;
  const std::vector<std::string> &names_;
  std::vector<double> calls_;  // milliseconds; of the thread that infers
  std::string origin_;
  // Of the thread of the files as long as that lives, and read when it has ended: it is written last, as the sign of a
  // complete run.
  std::string scores_;
};

}  // namespace

Latency Summarise(std::vector<double> milliseconds) {
  if (milliseconds.empty()) throw std::invalid_argument("no durations to summarise");
  std::sort(milliseconds.begin(), milliseconds.end());
  const size_t count = milliseconds.size();
  Latency latency;
  for (const double value : milliseconds) latency.mean += value / static_cast<double>(count);
  latency.median = (milliseconds[(count - 1) / 2] + milliseconds[count / 2]) / 2.0;
  latency.p99 = milliseconds[(count * 99 + 99) / 100 - 1];
  return latency;
}

void PrepareResults(const Options &options, const std::vector<std::string> &names) {
  MakeFolder(options.result_path);
  const bool is_beside = IsSame(options.result_path, options.input_path);
  for (const std::string &name : names) {
    const std::string result = ResultName(name);
    CheckName(options.result_path, result);
    if (is_beside && std::binary_search(names.begin(), names.end(), result)) {
      throw Error(Join(options.input_path, result) + ": is an input, and the map of " + name +
                  " would take its place; choose another --result_path");
    }
  }
}

RunSummary RunPipeline(Engine *engine, const Options &options, const DecisionRule &rule,
                       const std::vector<std::string> &names) {
  return Run(engine, options, rule, names).Execute();
}

std::string Report(const RunSummary &summary) {
  return "images: " + std::to_string(summary.images) + "\nbatch size: " + std::to_string(summary.batch_size) +
         "\nmean ms per call: " + Fixed(summary.call.mean, 3) +
         "\nmedian ms per call: " + Fixed(summary.call.median, 3) + "\np99 ms per call: " + Fixed(summary.call.p99, 3) +
         "\nimages per second: " + Fixed(summary.images_per_second, 2) +
         "\nimages per second, inference alone: " + Fixed(summary.inference_per_second, 2) + "\n";
}

std::string StaticReport(const RunSummary &summary) {
  return "NN inference cost average time: " + Fixed(summary.call.mean, 3) + " ms of infer_count " +
         std::to_string(summary.calls) + "\n";
}

}  // namespace stpm
