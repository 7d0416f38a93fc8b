#include "inc/pipeline.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <thread>

#include "tests/check.h"

namespace stpm {
namespace {

constexpr size_t kSide = 4;
constexpr size_t kMapFloats = kSide * kSide;

using Clock = std::chrono::steady_clock;

double MillisecondsSince(Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::duration<double, std::milli>>(Clock::now() - start).count();
}

// The whole of it, from the listing on.
RunSummary RunPipeline(Engine *engine, const Options &options, const DecisionRule &rule = {}) {
  const std::vector<std::string> names = ListInputs(options.input_path, {options.result_path, options.time_path});
  PrepareResults(options, names);
  return RunPipeline(engine, options, rule, names);
}

// An engine whose map is the image's first channel plus one.
class FakeEngine : public Engine {
 public:
  explicit FakeEngine(size_t batch_size) : batch_size_(batch_size) {}

  size_t batch_size() const override { return batch_size_; }
  ImageSize image_size() const override { return {kSide, kSide}; }
  void Infer(const float *images, float *maps) override {
    ++calls;
    last_batch.assign(images, images + batch_size_ * input_floats());
    for (size_t i = 0; i < batch_size_; ++i) {
      for (size_t j = 0; j < kMapFloats; ++j) maps[i * kMapFloats + j] = images[i * 3 * kMapFloats + j] + 1.0F;
    }
    if (during) during();
  }

  int calls = 0;
  std::vector<float> last_batch;
  std::function<void()> during;

 private:
  size_t batch_size_;
};

// A folder of inputs; input i is i, i + 0.5, i + 1, ...
class Fixture {
 public:
  explicit Fixture(int count) {
    MakeFolder(folder / "in");
    Put(folder / "model", "123456789");
    options.mindir_path = folder / "model";
    for (int i = 0; i < count; ++i) PutFloats(Input(i), Image(i));
    options.input_path = folder / "in";
    options.result_path = folder / "out";
    options.warmup = 0;
  }

  static std::vector<float> Image(int i) {
    std::vector<float> values(3 * kMapFloats);
    for (size_t j = 0; j < values.size(); ++j) values[j] = static_cast<float>(i) + 0.5F * static_cast<float>(j);
    return values;
  }
  static std::string Name(int i) { return std::to_string(1000 + i); }
  std::string Input(int i) const { return folder / ("in/" + Name(i) + ".bin"); }
  std::string Result(int i) const { return folder / ("out/" + Name(i) + "_0.bin"); }
  bool HasItsMap(int i) const {
    std::vector<float> map(kMapFloats), image = Image(i);
    ReadFloats(Result(i), map.data(), kMapFloats);
    image.resize(kMapFloats);
    for (float &value : image) value += 1.0F;
    return map == image;
  }

  TemporaryFolder folder;
  Options options;
};

void TestEveryInputHasItsMap() {
  for (const int count : {1, 2, 3, 7, 8}) {
    for (const size_t batch_size : {1U, 2U, 3U, 8U, 11U}) {
      const Fixture fixture(count);
      FakeEngine engine(batch_size);
      const RunSummary summary = RunPipeline(&engine, fixture.options);
      CHECK(summary.images == static_cast<size_t>(count) && summary.batch_size == batch_size);
      CHECK(engine.calls == static_cast<int>((static_cast<size_t>(count) + batch_size - 1) / batch_size));
      for (int i = 0; i < count; ++i) CHECK(fixture.HasItsMap(i));
      CHECK(!Exists(fixture.Result(count)));
    }
  }
}

// Whichever waits for the other, the engine or the files: this is what the thread sanitizer looks at.
void TestManyInputs() {
  for (const int microseconds : {0, 100, 2000}) {
    const Fixture fixture(400);
    FakeEngine engine(3);
    engine.during = [&] { std::this_thread::sleep_for(std::chrono::microseconds(microseconds)); };
    CHECK(RunPipeline(&engine, fixture.options).images == 400 && engine.calls == 134);
    for (int i = 0; i < 400; ++i) CHECK(fixture.HasItsMap(i));
  }
}

void TestEngineThatFailsInAnyCall() {
  for (int failing = 1; failing <= 6; ++failing) {
    for (const int microseconds : {0, 1000}) {
      const Fixture fixture(11);
      FakeEngine engine(2);
      engine.during = [&] {
        std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
        if (engine.calls == failing) throw Error("out of order");
      };
      CHECK(Thrown<Error>([&] { RunPipeline(&engine, fixture.options); }) == "out of order");
      CHECK(engine.calls == failing && !Exists(fixture.folder / "out/scores.csv"));
      for (int i = 0; i < 11; ++i) {  // what was computed before is there, and nothing else
        CHECK(Exists(fixture.Result(i)) == (i < 2 * (failing - 1)));
        CHECK(!Exists(fixture.Result(i)) || fixture.HasItsMap(i));
      }
    }
  }
}

// The last batch is image 3, image 4, and image 4 again.
void TestPaddingRepeatsTheLastImage() {
  const Fixture fixture(5);
  FakeEngine engine(3);
  RunPipeline(&engine, fixture.options);
  std::vector<float> expected;
  for (const int i : {3, 4, 4}) {
    const std::vector<float> image = Fixture::Image(i);
    expected.insert(expected.end(), image.begin(), image.end());
  }
  CHECK(engine.last_batch == expected);
}

void TestScores() {
  Fixture fixture(2);
  FakeEngine engine(1);
  RunPipeline(&engine, fixture.options);
  std::string text = Get(fixture.folder / "out/scores.csv");
  CHECK(Contains(text, "input,score,milliseconds\n1000.bin,8.5,"));
  CHECK(Contains(text, "\n1001.bin,9.5,"));
  CHECK(!Contains(text, "verdict"));
  PutFloats(fixture.folder / "in/2,\"a\".bin", Fixture::Image(2));
  DecisionRule rule;
  rule.threshold = 9.5F;
  RunPipeline(&engine, fixture.options, rule);
  text = Get(fixture.folder / "out/scores.csv");
  CHECK(Contains(text, "input,score,milliseconds,relative_score,verdict\n1000.bin,8.5,"));
  CHECK(Contains(text, ",0.894736826,good\n1001.bin,9.5,"));
  CHECK(Contains(text, ",1,defective\n\"2,\"\"a\"\".bin\",10.5,"));
  // the values of a map go up by 0.5 from pixel to pixel: a region of two pixels is a step lower
  rule.min_area = 2;
  rule.review = 0.9F;
  RunPipeline(&engine, fixture.options, rule);
  text = Get(fixture.folder / "out/scores.csv");
  CHECK(Contains(text, "\n1000.bin,8,") && Contains(text, ",0.842105269,good\n1001.bin,9,"));
  CHECK(Contains(text, ",0.947368443,review\n\"2,\"\"a\"\".bin\",10,"));
}

void TestOrigin() {
  const Fixture fixture(1);
  FakeEngine engine(1);
  const auto origin = [&] {
    RunPipeline(&engine, fixture.options);
    return Get(fixture.folder / "out/origin.json");
  };
  // the check value that catalogues of CRCs give for "123456789": 0xCBF43926
  const std::string model = "{\"format\": 1, \"model\": {\"bytes\": 9, \"crc32\": 3421780262}, \"manifest\": ";
  CHECK(origin() == model + "null, \"min_area\": 1}\n");
  Put(fixture.folder / "in/manifest.json", "a");
  CHECK(origin() == model + "{\"bytes\": 1, \"crc32\": 3904355907}, \"min_area\": 1}\n");
  engine.during = [] { throw Error("out of order"); };
  CHECK(Thrown<Error>(origin) == "out of order");
  CHECK(!Exists(fixture.folder / "out/origin.json"));
}

// Five images in three calls, after two calls that are not counted. The engine takes its own times: what the program
// tells of them must lie between those and the time of the whole run.
void TestTimes() {
  Fixture fixture(5);
  fixture.options.warmup = 2;
  FakeEngine engine(2);
  std::vector<double> slept;  // milliseconds, of every call
  engine.during = [&] {
    const Clock::time_point start = Clock::now();
    std::this_thread::sleep_for(std::chrono::milliseconds(engine.calls <= 2 ? 150 : 10 * (engine.calls - 2)));
    slept.push_back(MillisecondsSince(start));
  };
  const Clock::time_point start = Clock::now();
  const RunSummary summary = RunPipeline(&engine, fixture.options);
  const double all = MillisecondsSince(start);
  CHECK(engine.calls == 5 && slept.size() == 5);
  if (slept.size() != 5) return;
  const double warmup = slept[0] + slept[1];
  std::vector<double> calls(slept.begin() + 2, slept.end());
  const double counted = calls[0] + calls[1] + calls[2];
  const auto is_close = [](double value, double expected) { return std::abs(value / expected - 1.0) < 1e-9; };

  CHECK(summary.total_seconds * 1000.0 >= counted && summary.total_seconds * 1000.0 <= all - warmup);
  CHECK(is_close(summary.images_per_second, 5.0 / summary.total_seconds));
  CHECK(summary.call.mean * 3.0 >= counted && summary.call.mean * 3.0 <= all - warmup);
  CHECK(is_close(summary.inference_per_second, 5.0 / (3.0 * summary.call.mean / 1000.0)));

  std::vector<double> told;  // the last column of scores.csv: of the call that the image was part of
  const std::string text = Get(fixture.folder / "out/scores.csv");
  for (size_t line = text.find('\n') + 1; line < text.size(); line = text.find('\n', line) + 1) {
    told.push_back(std::strtod(text.c_str() + text.find(',', text.find(',', line) + 1) + 1, nullptr));
  }
  CHECK(told.size() == 5 && told[0] == told[1] && told[2] == told[3]);
  for (size_t i = 0; i < told.size(); ++i) CHECK(told[i] > calls[i / 2] - 0.001 && told[i] <= all - warmup);
  std::sort(calls.begin(), calls.end());
  CHECK(summary.call.median >= calls[1] && summary.call.p99 >= calls[2] && summary.call.p99 <= all - warmup);
}

void TestWrongInputsStopBeforeTheFirstCall() {
  const Fixture fixture(3);
  PutFloats(fixture.Input(2), {1.0F});
  FakeEngine engine(1);
  const std::string text = Thrown<Error>([&] { RunPipeline(&engine, fixture.options); });
  CHECK(Contains(text, fixture.Input(2) + ": holds 4 bytes, the model expects 192"));
  CHECK(engine.calls == 0 && !Exists(fixture.Result(0)));
}

void TestNothingOfAnEarlierRunStays() {
  const Fixture fixture(3);
  FakeEngine engine(1);
  RunPipeline(&engine, fixture.options);
  engine.during = [] { throw Error("out of order"); };
  CHECK(Thrown<Error>([&] { RunPipeline(&engine, fixture.options); }) == "out of order");
  for (int i = 0; i < 3; ++i) CHECK(!Exists(fixture.Result(i)));
  CHECK(!Exists(fixture.folder / "out/scores.csv"));
}

void TestInputThatVanishes() {
  const Fixture fixture(4);
  FakeEngine engine(1);
  engine.during = [&] {
    if (Exists(fixture.Input(3))) RemoveFile(fixture.Input(3));
  };
  CHECK(Contains(Thrown<Error>([&] { RunPipeline(&engine, fixture.options); }), fixture.Input(3)));
  CHECK(!Exists(fixture.Result(3)) && !Exists(fixture.folder / "out/scores.csv"));
}

void TestInputThatIsNotFinite() {
  const Fixture fixture(2);
  std::vector<float> image = Fixture::Image(1);
  image.back() = NAN;
  PutFloats(fixture.Input(1), image);
  FakeEngine engine(1);
  const std::string text = Thrown<Error>([&] { RunPipeline(&engine, fixture.options); });
  CHECK(Contains(text, fixture.Input(1) + ": holds NaN or infinity"));
  CHECK(!Exists(fixture.Result(1)) && !Exists(fixture.folder / "out/scores.csv"));
}

// Its second map holds a NaN.
class BrokenEngine : public FakeEngine {
 public:
  using FakeEngine::FakeEngine;
  void Infer(const float *images, float *maps) override {
    FakeEngine::Infer(images, maps);
    if (calls == 2) maps[3] = NAN;
  }
};

void TestMapThatIsNotFinite() {
  const Fixture fixture(2);
  BrokenEngine engine(1);
  const std::string text = Thrown<Error>([&] { RunPipeline(&engine, fixture.options); });
  CHECK(Contains(text, fixture.Input(1) + ": its anomaly map holds NaN"));
  CHECK(!Exists(fixture.Result(1)));
}

void TestResultThatCannotBeWritten() {
  const Fixture fixture(2);
  MakeFolder(fixture.Result(1));
  FakeEngine engine(1);
  CHECK(Contains(Thrown<Error>([&] { RunPipeline(&engine, fixture.options); }), fixture.Result(1)));
  Fixture file(1);
  file.options.result_path = file.Input(0);
  CHECK(Contains(Thrown<Error>([&] { RunPipeline(&engine, file.options); }), "is not a folder"));
}

void TestResultsBesideTheInputs() {
  Fixture fixture(1);
  const std::string second = fixture.folder / ("in/" + Fixture::Name(0) + "_0.bin");  // as the first one's map
  PutFloats(second, Fixture::Image(7));
  const std::string before = Get(second);
  fixture.options.result_path = fixture.folder / "in/";
  FakeEngine engine(1);
  CHECK(Contains(Thrown<Error>([&] { RunPipeline(&engine, fixture.options); }),
                 "1000_0.bin: is an input, and the map of 1000.bin would take its place; choose another"));
  CHECK(Get(second) == before && engine.calls == 0);
  RemoveFile(second);
  fixture.options.time_path = fixture.options.result_path;
  for (int i = 0; i < 3; ++i) {  // its map is not taken for an input by the next run, whether or not that one ended
    const FolderLock lock(fixture.options.result_path);
    if (i == 2) RemoveFile(fixture.folder / "in/scores.csv");
    CHECK(RunPipeline(&engine, fixture.options).images == 1);
    CHECK(Contains(Get(fixture.folder / "in/scores.csv"), "1000.bin,8.5,"));
  }
}

// Told before the model is loaded, and before anything of an earlier run goes.
void TestLongName() {
  const Fixture fixture(2);
  FakeEngine engine(1);
  RunPipeline(&engine, fixture.options);
  const std::string name = std::string(250, 'n') + ".bin";  // its map's would have two bytes more
  PutFloats(fixture.folder / ("in/" + name), Fixture::Image(2));
  CHECK(Contains(Thrown<Error>([&] { RunPipeline(&engine, fixture.options); }), "n_0.bin: its name has 256 bytes"));
  CHECK(fixture.HasItsMap(0) && fixture.HasItsMap(1) && Exists(fixture.folder / "out/scores.csv"));
  const std::string longest = std::string(249, 'n');
  CHECK(::rename((fixture.folder / ("in/" + name)).c_str(), (fixture.folder / ("in/" + longest + ".bin")).c_str()) ==
        0);
  CHECK(RunPipeline(&engine, fixture.options).images == 3 && Exists(fixture.folder / ("out/" + longest + "_0.bin")));
}

void TestResultsBelowTheInputs() {
  Fixture fixture(2);
  fixture.options.result_path = fixture.folder / "in/new/maps.bin";
  fixture.options.time_path = fixture.folder / "in/times";
  FakeEngine engine(1);
  for (int i = 0; i < 2; ++i) {
    MakeFolder(fixture.options.time_path);
    CHECK(RunPipeline(&engine, fixture.options).images == 2);
    CHECK(Exists(fixture.options.result_path + "/scores.csv"));
  }
}

void TestReport() {
  RunSummary summary;
  summary.images = 10;
  summary.batch_size = 2;
  summary.calls = 5;
  summary.call.mean = 43.5;
  summary.call.median = 41.25;
  summary.call.p99 = 99.0004;
  summary.images_per_second = 20.126;
  summary.inference_per_second = 45.977;
  CHECK(Report(summary) ==
        "images: 10\nbatch size: 2\n"
        "mean ms per call: 43.500\nmedian ms per call: 41.250\np99 ms per call: 99.000\n"
        "images per second: 20.13\nimages per second, inference alone: 45.98\n");
  CHECK(StaticReport(summary) == "NN inference cost average time: 43.500 ms of infer_count 5\n");
}

}  // namespace
}  // namespace stpm

int main() {
  stpm::TestEveryInputHasItsMap();
  stpm::TestManyInputs();
  stpm::TestEngineThatFailsInAnyCall();
  stpm::TestPaddingRepeatsTheLastImage();
  stpm::TestScores();
  stpm::TestOrigin();
  stpm::TestTimes();
  stpm::TestWrongInputsStopBeforeTheFirstCall();
  stpm::TestNothingOfAnEarlierRunStays();
  stpm::TestInputThatVanishes();
  stpm::TestInputThatIsNotFinite();
  stpm::TestMapThatIsNotFinite();
  stpm::TestResultThatCannotBeWritten();
  stpm::TestResultsBesideTheInputs();
  stpm::TestLongName();
  stpm::TestResultsBelowTheInputs();
  stpm::TestReport();
  return stpm::failures == 0 ? 0 : 1;
}
