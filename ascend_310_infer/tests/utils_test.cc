#include "inc/utils.h"

#include <sched.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <csignal>

#include "inc/cores.h"
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
  CHECK(options.device_id == 0 && options.precision == "enforce_fp32" && !options.selftest);
  CHECK(options.threads >= 1 && options.warmup == 3 && !options.threshold);
  options = Parse(
      With({"--device_type", "CPU", "--device_id", "7", "--threads", "4", "--warmup", "0", "--threshold", "1.5e-3"}));
  CHECK(options.device_type == DeviceType::kCpu && options.device_id == 7);
  CHECK(options.threads == 4 && options.warmup == 0);
  CHECK(options.threshold == 1.5e-3F && !options.review && Parse(With({"--review=0.8"})).review == 0.8F);
  options = Parse(With({"--device_type=GPU", "--device_id=65535", "--threads=1024", "--warmup=1000000"}));
  CHECK(options.device_type == DeviceType::kGpu && options.device_id == 65535);
  CHECK(options.threads == 1024 && options.warmup == 1000000);
  CHECK(Parse(With({"--device_type", "Ascend", "--threshold", "1e-37"})).device_type == DeviceType::kAscend);
  CHECK(Parse({"--help"}).help);
  options = Parse({"--mindir_path", "m", "--selftest"});
  CHECK(options.selftest && options.input_path == "." && options.result_path == "." && options.time_path == ".");
}

// Without --device_type: Ascend where the driver's file is.
void TestDevice() {
  const TemporaryFolder folder;
  CHECK(::setenv("STPM_DAVINCI", (folder / "davinci").c_str(), 1) == 0);
  CHECK(Parse(With({})).device_type == DeviceType::kCpu && !Parse(With({})).is_device_chosen);
  Put(folder / "davinci", "");
  CHECK(Parse(With({})).device_type == DeviceType::kAscend);
  CHECK(Parse(With({"--device_type", "auto"})).device_type == DeviceType::kAscend);
  const Options options = Parse(With({"--device_type", "CPU"}));
  CHECK(options.device_type == DeviceType::kCpu && options.is_device_chosen);
  CHECK(::setenv("STPM_DAVINCI", "", 1) == 0);  // as if it were not set
  CHECK((Parse(With({})).device_type == DeviceType::kAscend) == Exists("/dev/davinci_manager"));
  CHECK(::unsetenv("STPM_DAVINCI") == 0);
}

void TestPrecision() {
  const auto thrown = [](const char *device, const char *mode) {
    return Thrown<UsageError>(
        [&] { CHECK(Parse(With({"--precision", mode, "--device_type", device})).precision == mode); });
  };
  for (const char *mode : {"enforce_fp32", "preferred_fp32", "enforce_fp16", "preferred_optimal"}) {
    CHECK(thrown("Ascend", mode).empty());
  }
  CHECK(thrown("GPU", "enforce_fp32").empty() && thrown("GPU", "preferred_fp16").empty());
  CHECK(thrown("GPU", "enforce_fp16") ==
        "--precision: on GPU expected one of enforce_fp32, preferred_fp16, got 'enforce_fp16'");
  CHECK(Contains(thrown("Ascend", "preferred_fp16"), "--precision: on Ascend expected one of enforce_fp32, preferred"));
  CHECK(Contains(thrown("Ascend", ""), "got ''"));
  CHECK(Contains(thrown("CPU", "enforce_fp32"), "--precision: is for Ascend and GPU, the CPU computes in float32"));
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
  for (const char *value : {"", "x", "1x", "-1", "nan", "inf", "1e99", "3.40000001e38", "1.17e-38", "1e-46", "0"}) {
    CHECK(Contains(thrown({"--threshold", value}), "--threshold: expected a number from 1.17549436e-38 to 3.4e38"));
  }
  CHECK(Contains(thrown({"--device_type", "cpu"}), "expected auto, Ascend, GPU or CPU, got 'cpu'"));
  CHECK(Contains(thrown({"--speed", "1"}), "no such flag"));
  CHECK(Contains(thrown({"-xy"}), "-xy: no such flag"));
  for (const char *word : {"--thre", "--thre=1", "--device_t", "--help=1", "--he", "-h", "---threads"}) {
    CHECK(Contains(thrown({word, "1"}), std::string(word) + ": no such flag"));
  }
  for (const char *word : {"-", "--", ""}) CHECK(Contains(thrown({word}), std::string(word) + ": unexpected argument"));
  CHECK(Contains(thrown({"--threads"}), "--threads: a value is missing"));
  CHECK(Contains(thrown({"stray"}), "stray: unexpected argument"));
  CHECK(Contains(Thrown<UsageError>([] { Parse({}); }), "--mindir_path is required"));
  CHECK(Contains(thrown({"--input_path="}), "--input_path is required"));
}

// To the double and from there to the float, as Python goes: straight to the float, this one would be the next above.
void TestThresholdRounding() {
  const Options options = Parse(With({"--threshold", "1.00000005960464477540000000000000000000000000001"}));
  CHECK(options.threshold == 1.0F);
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

// Also those of other letters, and whatever they are.
void TestLeftoversOfSystems() {
  const TemporaryFolder folder;
  Put(folder / "a.bin", "");
  for (const char *name : {"Thumbs.db", "desktop.ini", ".DS_Store", "._a.bin", "Icon\r"}) Put(folder / name, "");
  MakeFolder(folder / "@eaDir/a.bin");
  CHECK(ListInputs(folder.path()) == std::vector<std::string>{"a.bin"});
  Put(folder / "thumbs.db.bin", "");
  CHECK(ListInputs(folder.path()).size() == 2);
}

// Told by name, size, manifest, and the lock that a run leaves; in doubt it is an input, and refused later by its size.
void TestMapsAmongTheInputs() {
  using Names = std::vector<std::string>;
  const TemporaryFolder folder;
  const auto list = [&] { return ListInputs(folder.path()); };
  const std::string image(12, 'i'), map(4, 'm');
  for (const char *name : {"a.bin", "b.bin", "b_0.bin", "b_0_0.bin"}) Put(folder / name, image);
  for (const char *name : {"a_0.bin", "c_0.bin"}) Put(folder / name, map);
  CHECK((list() == Names{"a.bin", "a_0.bin", "b.bin", "b_0.bin", "b_0_0.bin", "c_0.bin"}));
  {
    const FolderLock lock(folder.path());
  }
  for (const char *name : {"scores.csv", "origin.json", "timing.txt", "test_perform_static.txt"})
    Put(folder / name, "");
  const Names told = {"a.bin", "b.bin", "b_0.bin", "b_0_0.bin", "c_0.bin"};
  CHECK(list() == told);
  Put(folder / "manifest.json", "{\"images\": [{\"name\": \"a\"}, {\"name\": \"b\"}]}");
  CHECK(list() == told);
  Put(folder / "manifest.json", "{\"images\": [{\"name\": \"a\"}, {\"name\": \"a_0\"}]}");
  CHECK((list() == Names{"a.bin", "a_0.bin", "b.bin", "b_0.bin", "b_0_0.bin", "c_0.bin"}));
  Put(folder / "manifest.json", "{");
  CHECK(Contains(Thrown<Error>(list), "manifest.json: is damaged (expected a key at byte 1)"));
}

// What the program puts into the folder of its inputs does not stand in its way, in this run and in the next.
void TestOutputsBesideTheInputs() {
  const TemporaryFolder folder;
  const std::vector<std::string> expected = {"a.bin"};
  const auto list = [&](const std::vector<std::string> &outputs) { return ListInputs(folder.path(), outputs); };
  Put(folder / "a.bin", "");
  Put(folder / "timing.txt", "");
  MakeFolder(folder / "deep/er/maps");
  CHECK(Contains(Thrown<Error>([&] { list({}); }), "deep: expected only .bin files"));
  CHECK(list({"/nowhere", folder / "deep/er/maps"}) == expected);
  CHECK(list({folder / "deep/../deep//er/"}) == expected && list({folder / "deep"}) == expected);
  CHECK(Contains(Thrown<Error>([&] { list({folder / "dee"}); }), "deep: expected only .bin files"));
  MakeFolder(folder / "maps.bin");
  CHECK((list({folder / "deep"}) == std::vector<std::string>{"a.bin", "maps.bin"}));
  {
    const FolderLock lock(folder / "maps.bin");
  }
  CHECK(list({folder / "deep"}) == expected);
  MakeFolder(folder / "times/of/a run");
  Put(folder / "times/of/a run/timing.txt", "");
  CHECK(list({folder / "deep"}) == expected);
  Put(folder / "model.mindir", "");
  CHECK(Contains(Thrown<Error>([&] { list({folder / "deep"}); }), "model.mindir: expected only .bin files"));
  CHECK(list({folder / "deep", folder / "model.mindir"}) == expected);
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

void TestLongNames() {
  const TemporaryFolder folder;
  const std::string longest(NAME_MAX, 'n');
  CheckName(folder.path(), longest);
  WriteFile(folder / longest, "1", 1);
  CHECK(Get(folder / longest) == "1");
  const std::string text = Thrown<Error>([&] { CheckName(folder.path(), longest + "n"); });
  CHECK(Contains(text, "nn: its name has 256 bytes, the file system takes 255; shorten the input's name"));
  std::string deep = folder.path();
  while (deep.size() + 200 < PATH_MAX) deep += "/" + std::string(150, 'd');
  MakeFolder(deep);
  CheckName(deep, "a");
  WriteFile(deep + "/a", "1", 1);
  CHECK(Contains(Thrown<Error>([&] { CheckName(deep, longest); }), "its path has too many bytes"));
  // a short name would do, but not the one that it has at first
  const std::string deeper = deep + "/" + std::string(PATH_MAX - 5 - deep.size(), 'd');
  CHECK(Contains(Thrown<Error>([&] { CheckName(deeper, "a"); }), "its path has too many bytes"));
}

// Runs a function in a child; returns its exit status.
template <typename Function>
int InChild(Function function) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(function());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WEXITSTATUS(status);
}

void TestLock() {
  const TemporaryFolder folder;
  const auto is_refused = [&] {
    const std::string text = Thrown<Error>([&] { const FolderLock second(folder.path()); });
    const std::string start = folder.path() + ": is in use by process " + std::to_string(::getppid()) + " on ";
    return text.empty() ? 0 : Contains(text, start) && Contains(text, "; wait for it, or stop it") ? 1 : 2;
  };
  {
    const FolderLock lock(folder.path());
    CHECK(lock.is_held() && InChild(is_refused) == 1);
    CHECK(Contains(Get(folder / ".infer.lock"), "process " + std::to_string(::getpid()) + " on "));
  }
  CHECK(InChild(is_refused) == 0);  // the file is there, and nobody has it
  CHECK(InChild([&] {
          new FolderLock(folder.path());  // and ends without letting go
          return 0;
        }) == 0);
  CHECK(InChild(is_refused) == 0);
  RemoveFile(folder / ".infer.lock");
  Put(folder / "precious", "1");
  CHECK(::symlink("precious", (folder / ".infer.lock").c_str()) == 0);
  CHECK(Contains(Thrown<Error>([&] { const FolderLock lock(folder.path()); }), ".infer.lock: cannot be written"));
  CHECK(Get(folder / "precious") == "1");
}

void TestLeftovers() {
  const TemporaryFolder folder;
  char host[HOST_NAME_MAX + 1] = "";
  ::gethostname(host, sizeof(host) - 1);
  const pid_t ended = ::fork();
  if (ended == 0) ::_exit(0);
  ::waitpid(ended, nullptr, 0);
  const std::string start = std::string(".stpm_infer.") + host + "-";
  const std::string dead = start + std::to_string(ended) + "-0.tmp",
                    alive = start + std::to_string(::getppid()) + "-7.tmp";
  const std::string elsewhere = ".stpm_infer.other-1-1.tmp";
  const std::vector<std::string> others = {"a.tmp",         ".stpm_infer.tmp", ".stpm_infer.x.tmp", start + "1-x.tmp",
                                           start + "1.tmp", "x" + dead,        dead + "x",          ".infer.lock"};
  for (const std::string &name : others) Put(folder / name, "");
  for (const std::string &name : {dead, alive, elsewhere}) Put(folder / name, "");
  RemoveLeftovers(folder.path(), false);
  CHECK(!Exists(folder / dead) && Exists(folder / alive) && Exists(folder / elsewhere));
  RemoveLeftovers(folder.path(), true);
  CHECK(!Exists(folder / alive) && !Exists(folder / elsewhere));
  for (const std::string &name : others) CHECK(Exists(folder / name));
  RemoveLeftovers(folder / "none", true);
}

// A tree that stands in for /proc and /sys/fs/cgroup.
class Groups {
 public:
  explicit Groups(const std::string &own) {
    MakeFolder(folder / "proc/self");
    Put(folder / "proc/self/cgroup", own);
  }
  void Set(const std::string &file, const std::string &content) const {
    const std::string path = folder / ("sys/fs/cgroup/" + file);
    MakeFolder(path.substr(0, path.find_last_of('/')));
    Put(path, content + "\n");
  }
  int Cores() const { return QuotaCores(folder.path()); }

  TemporaryFolder folder;
};

void TestQuotaOfVersion2() {
  const Groups groups("0::/a/b c\n");
  CHECK(groups.Cores() == 0);
  groups.Set("a/b c/cpu.max", "max 100000");
  CHECK(groups.Cores() == 0);
  groups.Set("a/b c/cpu.max", "250000 100000");
  CHECK(groups.Cores() == 3);
  groups.Set("a/b c/cpu.max", "300000 100000");
  CHECK(groups.Cores() == 3);
  groups.Set("a/cpu.max", "30000 20000");  // the tightest, wherever it stands
  CHECK(groups.Cores() == 2);
  groups.Set("cpu.max", "1000 100000");
  CHECK(groups.Cores() == 1);
  groups.Set("cpu.max", "max");
  groups.Set("a/cpu.max", "100000");  // of no period: no quota
  CHECK(groups.Cores() == 3);
  groups.Set("other/cpu.max", "1000 100000");
  groups.Set("a/b c/below/cpu.max", "1000 100000");
  CHECK(groups.Cores() == 3);
}

// Groups of version 1, each kind with its own path, and version 2 beside them.
void TestQuotaOfVersion1() {
  const Groups groups("12:cpuset:/x\n4:cpu,cpuacct:/docker/1\n0::/y\n");
  groups.Set("cpuset/x/cpu.cfs_quota_us", "1000");
  CHECK(groups.Cores() == 0);
  for (const std::string mount : {"cpu", "cpu,cpuacct"}) {
    groups.Set(mount + "/docker/1/cpu.cfs_period_us", "50000");
    groups.Set(mount + "/docker/1/cpu.cfs_quota_us", "-1");
    CHECK(groups.Cores() == 0);
    groups.Set(mount + "/docker/1/cpu.cfs_quota_us", "170000");
    CHECK(groups.Cores() == 4);
    groups.Set(mount + "/docker/cpu.cfs_quota_us", "100000");
    CHECK(groups.Cores() == 4);  // of no period: no quota
    groups.Set(mount + "/docker/cpu.cfs_quota_us", "200000");
    groups.Set(mount + "/docker/cpu.cfs_period_us", "100000");
    CHECK(groups.Cores() == 2);
    groups.Set(mount + "/docker/cpu.cfs_quota_us", "-1");
    groups.Set(mount + "/docker/1/cpu.cfs_quota_us", "-1");
  }
  groups.Set("unified/y/cpu.max", "100000 100000");
  CHECK(groups.Cores() == 1);
}

void TestOddQuotas() {
  CHECK(QuotaCores("/nowhere") == 0);
  for (const char *own : {"", "\n", "0::", "0:cpu", "x", "1:cpu:", "0::relative"}) CHECK(Groups(own).Cores() == 0);
  const Groups groups("0::/host/only\n1:cpu:/host/only");
  for (const char *text : {"", "x", "x y", "-5 100000", "100000 0", "100000 -1", "0 100000", "1.5 1", "max max", "1",
                           "1 1 1", "01 1", "99999999999999999999 1"}) {
    groups.Set("cpu.max", text);
    CHECK(groups.Cores() == 0);
  }
  groups.Set("cpu.max", "9999999999999999999 1");
  CHECK(groups.Cores() == INT_MAX);
  MakeFolder(groups.folder / "sys/fs/cgroup/cpu/cpu.cfs_quota_us");  // no file
  CHECK(groups.Cores() == INT_MAX);
  groups.Set("cpu.max", "100001 100000");  // of the mount's root, in a container with the path of its host
  CHECK(groups.Cores() == 2);
}

void TestCoreCount() {
  const Groups groups("0::/\n");
  cpu_set_t before;
  ::sched_getaffinity(0, sizeof(before), &before);
  CHECK(CoreCount(groups.folder.path()) == CPU_COUNT(&before));
  groups.Set("cpu.max", "100000 100000");
  CHECK(CoreCount(groups.folder.path()) == 1);
  groups.Set("cpu.max", "9900000 100000");
  CHECK(CoreCount(groups.folder.path()) == std::min(99, CPU_COUNT(&before)));
  CHECK(InChild([&] {
          cpu_set_t one;
          CPU_ZERO(&one);
          for (size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i) {
            if (CPU_ISSET(i, &before)) CPU_SET(i, &one);
          }
          ::sched_setaffinity(0, sizeof(one), &one);
          return CoreCount(groups.folder.path());
        }) == 1);
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
  stpm::TestDevice();
  stpm::TestPrecision();
  stpm::TestBadOptions();
  stpm::TestThresholdRounding();
  stpm::TestListInputs();
  stpm::TestLeftoversOfSystems();
  stpm::TestMapsAmongTheInputs();
  stpm::TestOutputsBesideTheInputs();
  stpm::TestReadFloats();
  stpm::TestCheckModelFile();
  stpm::TestWriteFile();
  stpm::TestLongNames();
  stpm::TestLock();
  stpm::TestLeftovers();
  stpm::TestQuotaOfVersion2();
  stpm::TestQuotaOfVersion1();
  stpm::TestOddQuotas();
  stpm::TestCoreCount();
  stpm::TestMakeFolder();
  stpm::TestText();
  stpm::TestSummarise();
  return stpm::failures == 0 ? 0 : 1;
}
