#include "inc/inspector.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <new>
#include <set>
#include <thread>

#include "inc/bounded_queue.h"
#include "inc/lines.h"
#include "inc/statistics.h"
#include "tests/check.h"

namespace stpm {
namespace {

constexpr ImageSize kSize = {4, 4};

// Its map is the image's first channel.
class FakeEngine : public Engine {
 public:
  explicit FakeEngine(size_t batch_size) : batch_size_(batch_size) {}

  size_t batch_size() const override { return batch_size_; }
  ImageSize image_size() const override { return kSize; }
  void Infer(const float *images, float *maps) override {
    ++calls;
    if (during) during();
    for (size_t i = 0; i < batch_size_; ++i) {
      std::copy_n(images + i * input_floats(), output_floats(), maps + i * output_floats());
    }
    last_image = images[(batch_size_ - 1) * input_floats()];
  }

  int calls = 0;
  float last_image = 0.0F;
  std::function<void()> during;

 private:
  const size_t batch_size_;
};

// The numbers from 0 on, as names; it can wait before each.
class Numbers : public Source {
 public:
  Numbers(int count, const Stop *stop) : count_(count), stop_(stop) {}

  std::optional<Job> Next() override {
    if (next_ == count_ || stop_->IsSet()) return std::nullopt;
    if (before) before();
    const std::string name = std::to_string(next_++);
    return Job{name, name, Clock::now(), {}};
  }
  int next() const { return next_; }

  std::function<void()> before;

 private:
  const int count_;
  const Stop *const stop_;
  std::atomic<int> next_ = 0;
};

void Pause(int microseconds) {
  if (microseconds > 0) std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
}

// Picture i is i everywhere. Every seventh cannot be read.
Prepared Make(const Job &job) {
  const int number = std::stoi(job.path);
  if (number % 7 == 3) throw Error(job.path + ": no picture");
  Prepared prepared;
  prepared.box = {0, 0, 40, 40};
  prepared.input.assign(3 * kSize.pixels(), static_cast<float>(number));
  return prepared;
}

bool IsRight(const Inspection &inspection) {
  const int number = std::stoi(inspection.job.file);
  if (number % 7 == 3) return inspection.error == inspection.job.file + ": no picture" && inspection.map.empty();
  return inspection.error.empty() && std::lround(inspection.finding.score) == number;
}

void TestOrder() {
  for (const size_t batch_size : {1U, 3U}) {
    for (const size_t decoders : {1U, 4U}) {
      for (const auto &[source_us, decode_us, engine_us, take_us] :
           {std::array{0, 0, 0, 0}, std::array{0, 300, 0, 0}, std::array{0, 0, 300, 0}, std::array{0, 0, 0, 300},
            std::array{300, 0, 0, 0}}) {
        const Stop stop;
        Numbers source(100, &stop);
        source.before = [us = source_us] { Pause(us); };
        FakeEngine engine(batch_size);
        engine.during = [us = engine_us] { Pause(us); };
        int taken = 0;
        bool is_right = true;
        Inspect(
            &engine, DecisionRule{}, &source, &stop, decoders,
            [us = decode_us](const Job &job) {
              if (us > 0 && std::stoi(job.path) % 3 == 0) Pause(5 * us);
              return Make(job);
            },
            [&, us = take_us](const Inspection &inspection) {
              Pause(us);
              is_right = is_right && inspection.job.file == std::to_string(taken++) && IsRight(inspection);
            });
        CHECK(taken == 100 && is_right);
        CHECK(engine.calls >= static_cast<int>(85 / batch_size) && engine.calls <= 86);
      }
    }
  }
}

// Few pictures are in memory, however slow whatever is.
void TestBounds() {
  const Stop stop;
  Numbers source(200, &stop);
  FakeEngine engine(2);
  int taken = 0, most = 0;
  Inspect(&engine, DecisionRule{}, &source, &stop, 3, Make, [&](const Inspection &) {
    Pause(200);
    most = std::max(most, source.next() - taken++);
  });
  // decoders + a batch on their way in, a batch in hand, one on its way out, one picture each with source and taker
  CHECK(taken == 200 && most <= (3 + 2) + 2 + 2 + 1 + 1 + 1);
}

// A lone picture does not wait for others, and the rest of the batch is filled with it.
void TestLonePicture() {
  const Stop stop;
  Numbers source(2, &stop);
  std::atomic<int> taken = 0;
  source.before = [&] {
    while (source.next() != taken) Pause(100);
  };
  FakeEngine engine(8);
  Inspect(&engine, DecisionRule{}, &source, &stop, 2, Make, [&](const Inspection &) { ++taken; });
  CHECK(taken == 2 && engine.calls == 2 && std::lround(engine.last_image) == 1);
}

// Whichever thread fails, and whenever, all end, and nothing wrong is handed on.
void TestFailures() {
  for (int failing = 1; failing <= 12; ++failing) {
    for (int place = 0; place < 4; ++place) {
      const Stop stop;
      Numbers source(1000, &stop);
      FakeEngine engine(2);
      std::atomic<int> asked = 0, decoded = 0;
      int taken = 0;
      bool is_right = true;
      const auto fail = [&](int who, int count) {
        if (who == place && count == failing) throw std::logic_error("place " + std::to_string(place));
      };
      source.before = [&] { fail(0, ++asked); };
      engine.during = [&] { fail(2, engine.calls); };
      const auto run = [&] {
        Inspect(
            &engine, DecisionRule{}, &source, &stop, 3,
            [&](const Job &job) {
              fail(1, ++decoded);
              return Make(job);
            },
            [&](const Inspection &inspection) {
              is_right = is_right && inspection.job.file == std::to_string(taken) && IsRight(inspection);
              fail(3, ++taken);
            });
      };
      CHECK(Thrown<std::logic_error>(run) == "place " + std::to_string(place));
      CHECK(is_right && taken <= failing + 8 + 24);
      CHECK(stop.IsSet());
    }
  }
}

void TestStop() {
  const Stop stop;
  Numbers source(1000000, &stop);
  FakeEngine engine(1);
  int taken = 0;
  Inspect(&engine, DecisionRule{}, &source, &stop, 2, Make, [&](const Inspection &) {
    if (++taken == 20) stop.Set();
  });
  CHECK(taken == source.next() && taken < 40);  // what was in hand is finished
}

void TestBadPictures() {
  const Stop stop;
  Numbers source(3, &stop);
  FakeEngine engine(1);
  std::vector<std::string> errors;
  Inspect(
      &engine, DecisionRule{}, &source, &stop, 1,
      [](const Job &job) {
        Prepared prepared = Make(Job{"0", "0", {}, {}});
        if (job.path == "0") throw std::bad_alloc();
        if (job.path == "1") prepared.input[5] = std::numeric_limits<float>::quiet_NaN();
        return prepared;
      },
      [&](const Inspection &inspection) {
        CHECK((inspection.finding.verdict == kErrorVerdict) == !inspection.error.empty());
        errors.push_back(inspection.error);
      });
  CHECK(errors.size() == 3 && errors[0] == "0: not enough memory to decode it");
  CHECK(errors[1] == "1: its anomaly map holds NaN or infinity" && errors[2].empty());
}

// By hand: two regions of a map of 4 x 4 pixels for a part of 8 x 12 pixels at (100, 10); corners touch.
void TestRegions() {
  const std::vector<float> map = {5, 0, 0, 0,  //
                                  0, 3, 0, 0,  //
                                  0, 0, 0, 9,  //
                                  2, 0, 0, 0};
  DecisionRule rule;
  rule.threshold = 2.0F;
  const Box box = {100, 10, 8, 12};
  const auto text = [&](const std::vector<float> &values) {
    std::string all;
    for (const Region &region : FindRegions(values.data(), kSize, rule, box)) {
      for (const size_t number : {region.x, region.y, region.width, region.height, region.area}) {
        all += std::to_string(number) + " ";
      }
      all += Exact(region.score) + ";";
    }
    return all;
  };
  CHECK(text(map) == "106 16 2 3 6 9;100 10 4 6 12 5;100 19 2 3 6 2;");
  rule.min_area = 2;
  CHECK(text(map) == "100 10 4 6 12 5;");
  rule.min_area = 1;
  // of equal ones the upper, then the left one; sizes that do not divide: edges outwards, areas to the nearest
  CHECK(text({0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 2, 0, 0, 0, 0, 0}) == "106 10 2 3 6 2;100 16 2 3 6 2;104 16 2 3 6 2;");
  const float odd[] = {0, 2, 0};
  const std::vector<Region> regions = FindRegions(odd, {1, 3}, rule, {0, 0, 10, 1});
  CHECK(regions.size() == 1 && regions[0].x == 3 && regions[0].width == 4 && regions[0].area == 3);
}

void TestLines() {
  Inspection inspection;
  inspection.job.file = "a,b\xff\xc3\xa9.png";
  inspection.finding.score = 0.1F;
  inspection.decode_milliseconds = 1.234;
  CHECK(HeaderLine(Format::kCsv, true) ==
        "file,score,relative_score,verdict,regions,error,decode_ms,inference_ms,late\n");
  CHECK(HeaderLine(Format::kJsonl, true).empty());
  CHECK(PictureLine(inspection, Format::kCsv, false, true) == "\"a,b\xff\xc3\xa9.png\",0.100000001,,,0,,1.23,0.00\n");
  CHECK(PictureLine(inspection, Format::kJsonl, true, true) ==
        "{\"file\": \"a,b\\udcff\\u00e9.png\", \"score\": 0.100000001, \"relative_score\": null, \"verdict\": null, "
        "\"regions\": [], \"decode_ms\": 1.23, \"inference_ms\": 0.00, \"late\": true}\n");
  inspection.finding.relative_score = std::numeric_limits<float>::infinity();
  inspection.finding.verdict = "defective";
  inspection.finding.regions = {{1, 2, 3, 4, 5, 0.5F}, {6, 7, 8, 9, 10, 0.25F}};
  CHECK(Contains(PictureLine(inspection, Format::kJsonl, false, false),
                 "\"relative_score\": null, \"verdict\": \"defective\", \"regions\": [{\"x\": 1, \"y\": 2, \"width\": "
                 "3, \"height\": 4, \"area\": 5, \"score\": 0.5}, {\"x\": 6, "));
  CHECK(Contains(PictureLine(inspection, Format::kCsv, true, false), ",inf,defective,2,,1.23,0.00,0\n"));
  Inspection error;
  error.job.file = "a";
  error.error = "a: \"no\" picture";
  error.finding.verdict = kErrorVerdict;
  CHECK(PictureLine(error, Format::kCsv, false, false) == "a,,,error,0,\"a: \"\"no\"\" picture\",0.00,0.00\n");
  CHECK(PictureLine(error, Format::kJsonl, false, false) ==
        "{\"file\": \"a\", \"verdict\": \"error\", \"error\": \"a: \\\"no\\\" picture\", \"decode_ms\": 0.00, "
        "\"inference_ms\": 0.00}\n");
}

void TestSources() {
  const TemporaryFolder folder;
  for (const char *const name : {"b.PNG", "a.jpeg", ".c.png", "d.txt", "e.tif", "png", "Thumbs.db"}) {
    Put(folder / name, "");
  }
  const Stop stop;
  ListSource list(folder.path(), &stop);
  for (const char *const name : {"a.jpeg", "b.PNG", "e.tif"}) {
    const std::optional<Job> job = list.Next();
    CHECK(job && job->file == name && job->path == folder / name);
  }
  CHECK(!list.Next() && list.left() == 0);
  ListSource one(folder / "d.txt", &stop);
  const std::optional<Job> job = one.Next();
  CHECK(job && job->file == "d.txt" && job->path == folder / "d.txt" && !one.Next());
  CHECK(Contains(Thrown<Error>([&] { ListSource(folder / "none", &stop); }), "none: no such image or folder"));
  MakeFolder(folder / "empty");
  CHECK(Contains(Thrown<Error>([&] { ListSource(folder / "empty", &stop); }), "empty: holds no image (.png "));

  int ends[2];
  CHECK(::pipe(ends) == 0);
  LineSource lines(ends[0], &stop);
  const std::string text = "x.png\r\n\n a b.png\nlast";
  CHECK(::write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  CHECK(lines.Next()->path == "x.png" && lines.Next()->path == " a b.png");
  ::close(ends[1]);
  CHECK(lines.Next()->path == "last" && !lines.Next());
  ::close(ends[0]);
  CHECK(::pipe(ends) == 0);
  LineSource silent(ends[0], &stop);
  std::thread stopper([&] {
    Pause(1000);
    stop.Set();
  });
  CHECK(!silent.Next());
  stopper.join();
  ::close(ends[0]);
  ::close(ends[1]);
}

void TestStatistics() {
  DecisionRule rule;
  rule.threshold = 1.0F;
  Statistics statistics(rule);
  for (int i = 1; i <= 100; ++i) statistics.Add(i % 2 == 0 ? "good" : "defective", i, i > 98);
  statistics.Add(kErrorVerdict, 1000.0, true);
  CHECK(Contains(statistics.Interval(), "101 pictures: p50 51.0 ms, p99 100.0 ms, "));
  CHECK(statistics.Summary() == "101 images, 1 unreadable, 50 good, 50 defective, 3 late");
  statistics.Add("good", 7.0, false);
  CHECK(Contains(statistics.Interval(), "1 pictures: p50 7.0 ms, p99 7.0 ms, "));
}

}  // namespace
}  // namespace stpm

int main() {
  stpm::TestRegions();
  stpm::TestLines();
  stpm::TestSources();
  stpm::TestStatistics();
  stpm::TestOrder();
  stpm::TestBounds();
  stpm::TestLonePicture();
  stpm::TestFailures();
  stpm::TestStop();
  stpm::TestBadPictures();
  return stpm::failures == 0 ? 0 : 1;
}
