#include "inc/utils.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <csignal>

#include "inc/options.h"
#include "inc/pipeline.h"
#include "tests/check.h"

namespace stpm {
namespace {

Options Parse(std::vector<std::string> words) {
  words.insert(words.begin(), "stpm_infer");
  std::vector<char *> argv;
  for (std::string &word : words) argv.push_back(&word[0]);
  argv.push_back(nullptr);
  return ParseOptions(static_cast<int>(words.size()), argv.data());
}

std::vector<std::string> With(const std::vector<std::string> &more) {
  std::vector<std::string> words = {"--mindir_path", "m", "--input_path", "i", "--result_path", "r", "--time_path=t"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

void TestOptions() {
  Options options = Parse(With({}));
  CHECK(options.mindir_path == "m" && options.input_path == "i");
  CHECK(options.result_path == "r" && options.time_path == "t");
  CHECK(options.device_type == DeviceType::kAscend && options.device_id == 0);
  CHECK(options.threads >= 1 && options.warmup == 3 && !options.has_threshold);
  options = Parse(
      With({"--device_type", "CPU", "--device_id", "7", "--threads", "4", "--warmup", "0", "--threshold", "1.5e-3"}));
  CHECK(options.device_type == DeviceType::kCpu && options.device_id == 7);
  CHECK(options.threads == 4 && options.warmup == 0);
  CHECK(options.has_threshold && options.threshold == 1.5e-3F);
  options = Parse(With({"--device_type=GPU", "--device_id=65535", "--threads=1024", "--warmup=1000000"}));
  CHECK(options.device_type == DeviceType::kGpu && options.device_id == 65535);
  CHECK(options.threads == 1024 && options.warmup == 1000000);
  CHECK(Parse(With({"--device_type", "Ascend", "--threshold", "1e-37"})).device_type == DeviceType::kAscend);
  CHECK(Parse({"--help"}).help);
}

void TestBadOptions() {
  const auto thrown = [](const std::vector<std::string> &words) {
    return Thrown<UsageError>([&] { Parse(With(words)); });
  };
  for (const char *value : {"", "x", "1x", "-1", " 1", "+1", "1.0", "99999999999999999999"}) {
    for (const char *flag : {"--device_id", "--threads", "--warmup"}) {
      const std::string text = thrown({flag, value});
      CHECK(Contains(text, flag) && Contains(text, "expected a whole number"));
      CHECK(Contains(text, "got '" + std::string(value) + "'"));
    }
  }
  CHECK(Contains(thrown({"--threads", "0"}), "from 1 to 1024, got '0'"));
  CHECK(Contains(thrown({"--threads", "1025"}), "from 1 to 1024, got '1025'"));
  CHECK(Contains(thrown({"--device_id", "65536"}), "from 0 to 65535, got '65536'"));
  for (const char *value : {"", "x", "1x", "-1", "nan", "inf", "1e99"}) {
    CHECK(Contains(thrown({"--threshold", value}), "--threshold: expected a number above 0"));
  }
  CHECK(Contains(thrown({"--device_type", "cpu"}), "expected Ascend, GPU or CPU, got 'cpu'"));
  CHECK(Contains(thrown({"--speed", "1"}), "no such flag"));
  CHECK(Contains(thrown({"-xy"}), "-x: no such flag"));
  CHECK(Contains(thrown({"--threads"}), "--threads: a value is missing"));
  CHECK(Contains(thrown({"stray"}), "stray: unexpected argument"));
  CHECK(Contains(Thrown<UsageError>([] { Parse({}); }), "--mindir_path is required"));
  CHECK(Contains(thrown({"--input_path="}), "--input_path is required"));
}

void TestListInputs() {
  const TemporaryFolder folder;
  const auto thrown = [&](const std::string &path) { return Thrown<Error>([&] { ListInputs(path); }); };
  CHECK(Contains(thrown(folder / "none"), "none: cannot be listed, expected a folder"));
  CHECK(Contains(thrown(folder.path()), "holds no .bin file"));
  Put(folder / "10.bin", "");
  Put(folder / "9 a.bin", "");
  Put(folder / ".hidden", "");
  Put(folder / "manifest.json", "");
  CHECK((ListInputs(folder.path()) == std::vector<std::string>{"10.bin", "9 a.bin"}));
  CHECK(Contains(thrown(folder / "10.bin"), "cannot be listed"));
  const TemporaryFolder many;  // in no order that a file system would give by itself
  for (int i = 0; i < 40; ++i) Put(many / (std::to_string(10 + i * 7 % 40) + ".bin"), "");
  const std::vector<std::string> names = ListInputs(many.path());
  CHECK(names.size() == 40 && names.front() == "10.bin" && names.back() == "49.bin");
  CHECK(std::is_sorted(names.begin(), names.end()));
  for (const char *name : {"a.png", "bin", "a.bin.tmp", "a.BIN"}) {
    Put(folder / name, "");
    CHECK(Contains(thrown(folder.path()), std::string(name) + ": expected only .bin files"));
    RemoveFile(folder / name);
  }
}

void TestReadFloats() {
  const TemporaryFolder folder;
  float values[2] = {};
  const auto thrown = [&](const char *name) { return Thrown<Error>([&] { ReadFloats(folder / name, values, 2); }); };
  PutFloats(folder / "two.bin", {1.5F, -2.0F});
  ReadFloats(folder / "two.bin", values, 2);
  CHECK(values[0] == 1.5F && values[1] == -2.0F);
  CHECK(Contains(thrown("none.bin"), "none.bin: cannot be read: No such file"));
  PutFloats(folder / "three.bin", {1.0F, 2.0F, 3.0F});
  CHECK(Contains(thrown("three.bin"), "three.bin: holds 12 bytes, the model expects 8"));
  Put(folder / "empty.bin", "");
  CHECK(Contains(thrown("empty.bin"), "holds 0 bytes"));
  ::mkdir((folder / "folder.bin").c_str(), 0777);
  CHECK(Contains(thrown("folder.bin"), "folder.bin: is not a file"));
}

void TestCheckModelFile() {
  const TemporaryFolder folder;
  const auto thrown = [&](const std::string &path) { return Thrown<Error>([&] { CheckModelFile(path); }); };
  CHECK(Contains(thrown(folder / "none.mindir"), "cannot be read, expected a MINDIR file: No such file"));
  CHECK(Contains(thrown(folder.path()), "is not a file"));
  Put(folder / "empty.mindir", "");
  CHECK(Contains(thrown(folder / "empty.mindir"), "is empty"));
  ::mkfifo((folder / "pipe.mindir").c_str(), 0666);
  CHECK(Contains(thrown(folder / "pipe.mindir"), "is not a file"));
  Put(folder / "full.mindir", "x");
  CheckModelFile(folder / "full.mindir");
}

void TestWriteFile() {
  const TemporaryFolder folder;
  WriteFile(folder / "a", "12345", 5);
  WriteFile(folder / "a", "123", 3);
  CHECK(Get(folder / "a") == "123");
  WriteFile(folder / "empty", "", 0);
  CHECK(Exists(folder / "empty"));
  CHECK(Contains(Thrown<Error>([&] { WriteFile(folder / "no/b", "1", 1); }), "no/b: cannot be written: No such file"));

  // a disk that fills up: writing beyond the limit fails with EFBIG, as a full disk does with ENOSPC
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before = {};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small = {4096, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const std::string large(10000, 'x');
  const std::string text = Thrown<Error>([&] { WriteFile(folder / "a", large.data(), large.size()); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  CHECK(Contains(text, "a: cannot be written: File too large"));
  CHECK(Get(folder / "a") == "123");  // the earlier file is whole, and nothing else is left
  RemoveFile(folder / "a");
  RemoveFile(folder / "a");
  RemoveFile(folder / "empty");
  CHECK(::remove(folder.path().c_str()) == 0 && ::mkdir(folder.path().c_str(), 0777) == 0);
}

void TestMakeFolder() {
  const TemporaryFolder folder;
  MakeFolder(folder / "a/b/c");
  MakeFolder(folder / "a/b/c/");
  Put(folder / "a/b/c/x", "1");
  CHECK(Contains(Thrown<Error>([&] { MakeFolder(folder / "a/b/c/x"); }), "x: is not a folder"));
  CHECK(Contains(Thrown<Error>([&] { MakeFolder(folder / "a/b/c/x/y"); }), "x/y: cannot be created"));
  CHECK(Contains(Thrown<Error>([] { MakeFolder("/proc/stpm"); }), "/proc/stpm: cannot be created"));
}

void TestText() {
  CHECK(Join("a", "b") == "a/b" && Join("a/", "b") == "a/b");
  CHECK(ResultName("00000_good_001.bin") == "00000_good_001_0.bin");
  CHECK(CsvField("a b.bin") == "a b.bin");
  CHECK(CsvField("a,\"b\".bin") == "\"a,\"\"b\"\".bin\"");
}

void TestSummarise() {
  Latency latency = Summarise({5.0});
  CHECK(latency.mean == 5.0 && latency.median == 5.0 && latency.p99 == 5.0);
  latency = Summarise({4.0, 1.0, 2.0, 5.0});
  CHECK(latency.mean == 3.0 && latency.median == 3.0 && latency.p99 == 5.0);
  std::vector<double> many;
  for (int i = 200; i > 0; --i) many.push_back(i);
  latency = Summarise(many);
  CHECK(latency.median == 100.5 && latency.p99 == 198.0);
  CHECK(!Thrown<std::invalid_argument>([] { Summarise({}); }).empty());
}

}  // namespace
}  // namespace stpm

int main() {
  stpm::TestOptions();
  stpm::TestBadOptions();
  stpm::TestListInputs();
  stpm::TestReadFloats();
  stpm::TestCheckModelFile();
  stpm::TestWriteFile();
  stpm::TestMakeFolder();
  stpm::TestText();
  stpm::TestSummarise();
  return stpm::failures == 0 ? 0 : 1;
}
