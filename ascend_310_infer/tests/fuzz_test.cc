// Random inputs, made by a seeded generator, for all that parses or reads, and what must be true of the answers.
//   fuzz_test [SEED [COUNT [FIRST]]]    COUNT inputs from number FIRST on; an input is a function of seed and number
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <thread>

#include "inc/journal.h"
#include "inc/json.h"
#include "inc/options.h"
#include "inc/pipeline.h"
#include "inc/utils.h"
#include "tests/check.h"
#include "tests/fuzz_harness.h"
#include "tests/random.h"

namespace stpm {
namespace {

// Returns the names in a folder, sorted.
Strings Entries(const std::string &folder) {
  Strings names;
  DIR *const directory = ::opendir(folder.c_str());
  if (directory == nullptr) return names;
  while (const dirent *entry = ::readdir(directory)) {
    if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0) names.push_back(entry->d_name);
  }
  ::closedir(directory);
  std::sort(names.begin(), names.end());
  return names;
}

void RemoveTree(const std::string &path) {
  struct stat status = {};
  if (::lstat(path.c_str(), &status) != 0) return;
  if (S_ISDIR(status.st_mode)) {
    for (const std::string &name : Entries(path)) RemoveTree(path + "/" + name);
  }
  CHECK(::remove(path.c_str()) == 0);
}

bool StartsWith(const std::string &text, const std::string &start) { return text.compare(0, start.size(), start) == 0; }

// --- command line

const Strings kPathFlags = {"--mindir_path", "--input_path", "--result_path", "--time_path"};
const Strings kIntegerFlags = {"--device_id", "--threads", "--warmup"};
const int64_t kMinimum[] = {0, 1, 0};
const int64_t kMaximum[] = {65535, 1024, 1000000};

Options Parse(Strings words) {
  words.insert(words.begin(), "/bin/program");
  std::vector<char *> argv;
  for (std::string &word : words) argv.push_back(&word[0]);
  argv.push_back(nullptr);
  return ParseOptions(static_cast<int>(words.size()), argv.data());
}

std::string RandomNumber(Random *random) {
  static const Strings odd = {"0",
                              "1",
                              "-1",
                              "-0",
                              "65535",
                              "65536",
                              "1024",
                              "1025",
                              "1000000",
                              "1000001",
                              "",
                              "x",
                              "1x",
                              " 1",
                              "+1",
                              "1.0",
                              "1e3",
                              "0x10",
                              "-",
                              "00000000000000000007",
                              "2 ",
                              "nan",
                              "inf",
                              "-inf",
                              "1e-50",
                              "1e99",
                              "1e-40",
                              "0.001",
                              "9223372036854775808",
                              "99999999999999999999"};
  if (random->OneIn(2)) return random->Of(odd);
  if (random->OneIn(2)) return std::to_string(static_cast<int64_t>(random->Below(3000000)) - 500000);
  return random->Text(8);
}

// Returns whether text is a whole number within the bounds, by a second way: digit by digit.
bool IsWithin(const std::string &text, int64_t minimum, int64_t maximum) {
  const bool negative = StartsWith(text, "-");
  const std::string digits = text.substr(negative ? 1 : 0);
  if (digits.empty() || digits.find_first_not_of("0123456789") != std::string::npos) return false;
  int64_t value = 0;
  for (const char digit : digits) value = std::min<int64_t>(value * 10 + (digit - '0'), int64_t{1} << 40);
  value = negative ? -value : value;
  return value >= minimum && value <= maximum;
}

void FuzzOneFlag(Random *random, const std::string &) {
  const size_t which = random->Below(kIntegerFlags.size());
  const std::string &flag = kIntegerFlags[which];
  const std::string value = RandomNumber(random);
  Strings words;
  for (const std::string &path_flag : kPathFlags) words.insert(words.end(), {path_flag, "p"});
  if (random->OneIn(2)) {
    words.push_back(flag + "=" + value);
  } else {
    words.insert(words.end(), {flag, value});
  }
  try {
    const Options options = Parse(words);
    CHECK(IsWithin(value, kMinimum[which], kMaximum[which]));
    const int64_t found[] = {options.device_id, options.threads, options.warmup};
    CHECK(found[which] == std::strtoll(value.c_str(), nullptr, 10));
  } catch (const UsageError &error) {
    CHECK(!IsWithin(value, kMinimum[which], kMaximum[which]));
    CHECK(StartsWith(error.what(), flag + ": expected a whole number from "));
    CHECK(Contains(error.what(), ", got '" + value + "'"));
  }
}

void FuzzCommandLine(Random *random, const std::string &) {
  static const Strings odd = {"--",   "-",   "-x",     "-xyz",     "--speed", "--thre", "--mindir", "--help=1",
                              "---x", "-W1", "--help", "--input_", "-h",      "--=",    "stray"};
  Strings words;
  for (const std::string &flag : kPathFlags) words.insert(words.end(), {flag, random->Text(6) + "p"});
  for (size_t more = random->Below(4); more > 0; --more) {
    words.insert(words.end(), {random->Of(kIntegerFlags), RandomNumber(random)});
  }
  if (random->OneIn(2)) words.insert(words.end(), {random->Of({"--threshold", "--review"}), RandomNumber(random)});
  if (random->OneIn(4))
    words.insert(words.end(), {"--precision", random->Of({"enforce_fp32", "enforce_fp16", "x", ""})});
  if (random->OneIn(4)) words.push_back("--selftest");
  if (random->OneIn(2))
    words.insert(words.end(), {"--device_type", random->Of({"CPU", "GPU", "Ascend", "auto", "cpu", ""})});
  for (size_t changes = random->Below(4); changes > 0 && !words.empty(); --changes) {
    const auto place = words.begin() + static_cast<std::ptrdiff_t>(random->Below(words.size()));
    switch (random->Below(5)) {
      case 0:
        words.erase(place);
        break;
      case 1:
        words.insert(place, random->Of(odd));
        break;
      case 2:
        *place = random->Text(10);
        break;
      case 3:
        std::iter_swap(place, words.begin());
        break;
      default:
        *place += "=" + random->Text(3);
    }
  }
  try {
    const Options options = Parse(words);
    if (options.help) return;
    CHECK(options.device_id <= 65535 && options.threads >= 1 && options.warmup >= 0 && options.warmup <= 1000000);
    CHECK(!options.threshold || IsThreshold(*options.threshold));
    CHECK(!options.review || (*options.review >= 0.0F && *options.review <= 1.0F));
    for (const std::string &path : {options.mindir_path, options.input_path, options.result_path, options.time_path}) {
      CHECK(path == "." || std::any_of(words.begin(), words.end(), [&](const std::string &word) {
              return word == path || Contains(word, "=" + path);
            }));
    }
  } catch (const UsageError &error) {
    // it begins with the word or the flag that is wrong
    Strings names = kPathFlags;
    names.insert(names.end(), kIntegerFlags.begin(), kIntegerFlags.end());
    names.insert(names.end(), {"--threshold", "--review", "--device_type", "--precision"});
    for (const std::string &word : words) names.insert(names.end(), {word, word.substr(0, 2)});
    const std::string text = error.what();
    const bool is_named = std::any_of(names.begin(), names.end(), [&](const std::string &name) {
      return StartsWith(text, name + ": ") || text == name + " is required";
    });
    if (!is_named) std::fprintf(stderr, "got: %s\n", text.c_str());
    CHECK(is_named);
  }
}

// --- text and figures

// Returns the records of an RFC 4180 text whose lines end in LF; fails where it is none.
std::vector<Strings> ParseCsv(const std::string &text) {
  std::vector<Strings> records(1, Strings(1));
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    std::string &field = records.back().back();
    if (quoted && text[i] == '"' && i + 1 < text.size() && text[i + 1] == '"') {
      field += text[i++];
    } else if (text[i] == '"') {
      CHECK(quoted || field.empty());
      quoted = !quoted;
      CHECK(quoted || i + 1 == text.size() || text[i + 1] == ',' || text[i + 1] == '\n');
    } else if (!quoted && text[i] == ',') {
      records.back().emplace_back();
    } else if (!quoted && text[i] == '\n') {
      records.emplace_back(1);
    } else {
      field += text[i];
      CHECK(quoted || text[i] != '\r');
    }
  }
  CHECK(!quoted);
  return records;
}

void FuzzCsvField(Random *random, const std::string &) {
  std::vector<Strings> records(1 + random->Below(3), Strings(1 + random->Below(3)));
  std::string text;
  for (Strings &record : records) {
    if (&record != &records.front()) text += '\n';
    for (std::string &field : record) {
      if (&field != &record.front()) text += ',';
      field = random->Text(12);
      text += CsvField(field);
    }
  }
  CHECK(ParseCsv(text) == records);
}

void FuzzNames(Random *random, const std::string &) {
  const std::string stem = random->Name(20);
  CHECK(ResultName(stem + ".bin") == stem + "_0.bin");
  const std::string folder = random->Text(10) + "f";
  CHECK(Join(folder, stem) == folder + "/" + stem && Join(folder + "/", stem) == folder + "/" + stem);
}

// --- JSON

Json RandomJson(Random *random, int depth) {
  Json json;
  json.kind = static_cast<Json::Kind>(random->Below(depth > 0 ? 6 : 4));
  const bool is_object = json.kind == Json::Kind::kObject;
  if (json.kind == Json::Kind::kBool) json.boolean = random->OneIn(2);
  if (json.kind == Json::Kind::kNumber) json.number = static_cast<double>(random->Below(4000000)) * 0.25 - 500000.0;
  if (json.kind == Json::Kind::kString) json.text = random->Text(8);
  if (is_object || json.kind == Json::Kind::kArray) {
    for (size_t left = random->Below(4); left > 0; --left) {
      if (is_object) json.keys.push_back(std::to_string(left) + random->Text(4));
      json.values.push_back(RandomJson(random, depth - 1));
    }
  }
  return json;
}

// Text as Python's programs write it: what is not ASCII as the escape of a byte that is no character.
std::string Quoted(const std::string &text) {
  std::string quoted = "\"";
  char escape[8];
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    std::snprintf(escape, sizeof(escape), "\\u%04x", byte < 0x80 ? byte : 0xDC00U + byte);
    quoted += byte < 0x20 || byte >= 0x80 || c == '"' || c == '\\' ? escape : std::string(1, c);
  }
  return quoted + '"';
}

std::string Write(const Json &json, Random *random) {
  static const Strings space = {"", "", " ", "\n  ", "\t"};
  std::string text = random->Of(space);
  char number[64];
  switch (json.kind) {
    case Json::Kind::kNull:
      text += "null";
      break;
    case Json::Kind::kBool:
      text += json.boolean ? "true" : "false";
      break;
    case Json::Kind::kNumber:
      std::snprintf(number, sizeof(number), random->OneIn(2) ? "%.2f" : "%.9E", json.number);
      text += number;
      break;
    case Json::Kind::kString:
      text += Quoted(json.text);
      break;
    case Json::Kind::kArray:
    case Json::Kind::kObject:
      text += json.kind == Json::Kind::kArray ? '[' : '{';
      for (size_t i = 0; i < json.values.size(); ++i) {
        if (i > 0) text += ',' + random->Of(space);
        if (!json.keys.empty()) text += Quoted(json.keys[i]) + random->Of(space) + ':';
        text += Write(json.values[i], random);
      }
      text += json.kind == Json::Kind::kArray ? ']' : '}';
  }
  return text + random->Of(space);
}

bool IsEqual(const Json &one, const Json &other) {
  return one.kind == other.kind && one.boolean == other.boolean && one.number == other.number &&
         one.text == other.text && one.keys == other.keys &&
         std::equal(one.values.begin(), one.values.end(), other.values.begin(), other.values.end(), IsEqual);
}

void FuzzJson(Random *random, const std::string &) {
  const Json json = RandomJson(random, 3);
  std::string text = Write(json, random);
  const Json read = ParseJson(text);
  CHECK(IsEqual(read, json) && read == json);
  const std::string bytes = random->Text(8);
  CHECK(ParseJson(JsonString(bytes)).text == bytes);
  for (size_t changes = 1 + random->Below(3); changes > 0; --changes) {
    const size_t place = random->Below(text.size() + 1);
    if (random->OneIn(3)) {
      text = text.substr(0, place);
    } else if (random->OneIn(2)) {
      text.insert(place, random->Text(3));
    } else if (place < text.size()) {
      text[place] = static_cast<char>(random->Below(256));
    }
  }
  const std::string error = Thrown<Error>([&] { ParseJson(text); });
  CHECK(error.empty() || Contains(error, " at byte "));
}

void FuzzSummarise(Random *random, const std::string &) {
  std::vector<double> values(1 + random->Below(300));
  const size_t distinct = 1 + random->Below(1000);
  for (double &value : values) value = static_cast<double>(random->Below(distinct)) * 0.25;
  const Latency latency = Summarise(values);
  std::sort(values.begin(), values.end());
  const double slack = 1e-9 * (1.0 + values.back());
  CHECK(latency.mean >= values.front() - slack && latency.mean <= values.back() + slack);
  const auto at_most = [&](double limit) {
    return std::count_if(values.begin(), values.end(), [&](double value) { return value <= limit; });
  };
  const auto count = static_cast<std::ptrdiff_t>(values.size());
  const auto at_least =
      std::count_if(values.begin(), values.end(), [&](double value) { return value >= latency.median; });
  CHECK(2 * at_most(latency.median) >= count && 2 * at_least >= count);
  // the smallest of the values that 99 % do not exceed
  CHECK(100 * at_most(latency.p99) >= 99 * count);
  CHECK(std::count(values.begin(), values.end(), latency.p99) > 0);
  CHECK(100 * (at_most(std::nextafter(latency.p99, -1.0))) < 99 * count);
}

// --- files

// Something that a path can lead to, and what is true of it.
struct Thing {
  std::string path;
  bool is_file = false;
  std::string content;
};

Thing MakeThing(Random *random, const std::string &folder, size_t usual_size) {
  Thing thing;
  thing.path = folder + "/" + random->Name(40);
  size_t size = usual_size;
  if (random->OneIn(2)) size = random->Below(2 * usual_size + 2);
  std::string content(size, '\0');
  for (char &byte : content) byte = static_cast<char>(random->Below(256));
  switch (random->Below(12)) {
    case 0:
      ::mkdir(thing.path.c_str(), 0777);
      return thing;
    case 1:
      CHECK(::mkfifo(thing.path.c_str(), 0666) == 0);
      return thing;
    case 2:
      CHECK(::symlink(thing.path.c_str(), thing.path.c_str()) == 0);
      return thing;
    case 3:
      CHECK(::symlink("nowhere", thing.path.c_str()) == 0);
      return thing;
    case 4:
      thing.path += "/below";
      return thing;
    case 5:
      thing.path = folder + "/" + std::string(300, 'n');
      return thing;
    case 6:
      thing.path = random->OneIn(2) ? "/dev/zero" : "/dev/null";
      return thing;
    case 7:
      Put(folder + "/target", content);
      if (random->OneIn(2)) {
        CHECK(::symlink("target", thing.path.c_str()) == 0);
      } else {
        CHECK(::link((folder + "/target").c_str(), thing.path.c_str()) == 0);
      }
      break;
    default:
      Put(thing.path, content);
  }
  thing.is_file = true;
  thing.content = content;
  return thing;
}

void FuzzReaders(Random *random, const std::string &folder) {
  const size_t count = 1 + random->Below(16);
  const Thing thing = MakeThing(random, folder, count * sizeof(float));
  constexpr float kUntouched = 12345.0F;
  std::vector<float> values(count + 1, kUntouched);
  const bool is_right = thing.is_file && thing.content.size() == count * sizeof(float);
  const std::string read = Thrown<Error>([&] { ReadFloats(thing.path, values.data(), count); });
  const std::string sized = Thrown<Error>([&] { CheckSize(thing.path, count * sizeof(float)); });
  const std::string model = Thrown<Error>([&] { CheckModelFile(thing.path); });
  FileMark mark;
  const std::string marked = Thrown<Error>([&] { mark = MarkFile(thing.path); });
  CHECK(thing.is_file ? marked.empty() && mark.bytes == thing.content.size() : StartsWith(marked, thing.path + ": "));
  CHECK(values[count] == kUntouched);
  if (is_right) {
    CHECK(sized.empty() && model.empty());
    std::vector<float> content(count);
    std::memcpy(content.data(), thing.content.data(), thing.content.size());
    const bool is_finite = std::all_of(content.begin(), content.end(), [](float v) { return std::isfinite(v); });
    CHECK(is_finite ? read.empty() : StartsWith(read, thing.path + ": holds NaN or infinity"));
    CHECK(std::memcmp(values.data(), thing.content.data(), thing.content.size()) == 0);
  } else {
    CHECK(StartsWith(read, thing.path + ": ") && StartsWith(sized, thing.path + ": "));
    CHECK(values[0] == kUntouched);
    CHECK((thing.is_file && !thing.content.empty()) ? model.empty() : StartsWith(model, thing.path + ": "));
  }
}

// A file that another thread keeps changing, in place or by another in its place: what is read has the right size.
void FuzzChangingFile(Random *random, const std::string &folder) {
  const std::string path = folder + "/changing", next = folder + "/next";
  const size_t count = 1 + random->Below(4096);
  const bool in_place = random->OneIn(2);
  const std::vector<float> right(count, 1.0F), longer(2 * count, in_place ? 1.0F : 2.0F);
  PutFloats(path, right);
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    for (size_t i = 0; !stop; ++i) {
      if (in_place) {
        Put(path, "");  // truncates
        PutFloats(path, i % 2 == 0 ? right : longer);
      } else {
        PutFloats(next, i % 2 == 0 ? right : longer);
        std::rename(next.c_str(), path.c_str());
      }
    }
  });
  for (int i = 0; i < 50; ++i) {
    std::vector<float> values(count);
    const std::string error = Thrown<Error>([&] { ReadFloats(path, values.data(), count); });
    CHECK(error.empty() ? values == right : StartsWith(error, path + ": "));
  }
  stop = true;
  writer.join();
}

void FuzzListInputs(Random *random, const std::string &folder) {
  std::set<std::string> inputs;
  Strings others;
  for (size_t left = random->Below(8); left > 0; --left) {
    std::string name = random->Name(20);
    if (!random->OneIn(8)) name += ".bin";
    if (random->OneIn(8)) name = "manifest.json";
    if (random->OneIn(8)) name = "." + name;
    Put(folder + "/" + name, "");
    if (name[0] == '.' || name == "manifest.json") continue;
    const bool is_input = name.size() > 4 && name.substr(name.size() - 4) == ".bin";
    if (is_input) {
      inputs.insert(name);
    } else {
      others.push_back(name);
    }
  }
  Strings found;
  const std::string error = Thrown<Error>([&] { found = ListInputs(folder); });
  if (!others.empty()) {
    CHECK(std::any_of(others.begin(), others.end(), [&](const std::string &name) {
      return StartsWith(error, folder + "/" + name + ": expected only .bin files");
    }));
  } else if (inputs.empty()) {
    CHECK(StartsWith(error, folder + ": holds no .bin file"));
  } else {
    CHECK(error.empty() && found == Strings(inputs.begin(), inputs.end()));
  }
}

void FuzzWriteFile(Random *random, const std::string &folder) {
  const std::string name = random->OneIn(8) ? std::string(230 + random->Below(40), 'n') : random->Name(30);
  const std::string path = folder + "/" + name;
  const bool is_folder = random->OneIn(8) && name.size() < 200;
  const bool has_earlier = !is_folder && random->OneIn(2) && name.size() < 200;
  if (is_folder) ::mkdir(path.c_str(), 0777);
  if (has_earlier) Put(path, "earlier");
  const std::string content = random->Text(300);
  const std::string error = Thrown<Error>([&] { WriteFile(path, content.data(), content.size()); });
  if (error.empty()) {
    CHECK(!is_folder && Get(path) == content && Entries(folder) == Strings{name});
    RemoveFile(path);
    CHECK(Entries(folder).empty());
  } else {
    CHECK(is_folder || name.size() > 255);
    CHECK(StartsWith(error, path + ": cannot be written: "));
    CHECK(Entries(folder).size() == (is_folder ? 1U : 0U));
  }
}

void FuzzMakeFolder(Random *random, const std::string &folder) {
  Put(folder + "/file", "");
  ::mkdir((folder + "/there").c_str(), 0777);
  CHECK(::symlink("nowhere", (folder + "/dangling").c_str()) == 0);
  std::string path = folder;
  for (size_t parts = 1 + random->Below(4); parts > 0; --parts) {
    path +=
        random->Of({"/", "//", "/", "/./"}) + random->Of({"a", "there", "file", "dangling", random->Name(10), "b/"});
  }
  const std::string error = Thrown<Error>([&] { MakeFolder(path); });
  struct stat status = {};
  const bool is_there = ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
  CHECK(error.empty() == is_there);
  CHECK(error.empty() || StartsWith(error, folder));
}

// --- the loop

// The whole of it, from the listing on.
RunSummary RunPipeline(Engine *engine, const Options &options, const DecisionRule &rule) {
  const std::vector<std::string> names = ListInputs(options.input_path, {options.result_path, options.time_path});
  PrepareResults(options, names);
  return RunPipeline(engine, options, rule, names);
}

// An engine whose map is twice the image's first channel, and which may fail.
class FuzzEngine : public Engine {
 public:
  FuzzEngine(size_t batch_size, size_t map_floats, size_t fails_at)
      : batch_size_(batch_size), map_floats_(map_floats), fails_at_(fails_at) {}

  size_t batch_size() const override { return batch_size_; }
  ImageSize image_size() const override { return {1, map_floats_}; }
  void Infer(const float *images, float *maps) override {
    if (calls_++ == fails_at_) throw Error("the device is gone");
    for (size_t i = 0; i < batch_size_ * map_floats_; ++i) {
      maps[i] = 2.0F * images[i / map_floats_ * input_floats() + i % map_floats_];
    }
  }

 private:
  size_t batch_size_, map_floats_, fails_at_;
  size_t calls_ = 0;
};

std::string Bytes(const std::vector<float> &values) {
  return std::string(reinterpret_cast<const char *>(values.data()), values.size() * sizeof(float));
}

void CheckScores(const std::string &text, const std::map<std::string, std::vector<float>> &maps,
                 const DecisionRule &rule) {
  std::vector<Strings> records = ParseCsv(text);
  CHECK(records.size() == maps.size() + 2 && records.back() == Strings{""});
  for (const Strings &record : records) {
    CHECK(&record == &records.back() || record.size() == (rule.threshold ? 5U : 3U));
  }
  if (failures > 0) return;
  size_t row = 1;
  for (const auto &[name, map] : maps) {
    const Strings &record = records[row++];
    const float score = *std::max_element(map.begin(), map.end());
    CHECK(record[0] == name && std::strtof(record[1].c_str(), nullptr) == score);
    CHECK(std::strtod(record[2].c_str(), nullptr) >= 0.0);
    if (rule.threshold) CHECK(record[4] == (score >= *rule.threshold ? "defective" : "good"));
  }
}

void FuzzPipeline(Random *random, const std::string &folder) {
  const size_t map_floats = 1 + random->Below(9), batch_size = 1 + random->Below(5);
  Options options;
  options.mindir_path = folder + "/model";
  Put(options.mindir_path, random->Name(8));
  options.input_path = folder + "/in";
  options.result_path = random->OneIn(10) ? options.input_path : folder + "/out/maps";
  options.warmup = static_cast<int>(random->Below(3));
  DecisionRule rule;
  if (random->OneIn(2)) rule.threshold = 1.0F + static_cast<float>(random->Below(8));
  MakeFolder(options.input_path);
  std::map<std::string, std::vector<float>> maps;
  std::map<std::string, std::string> inputs;
  const bool is_beside = options.result_path == options.input_path;
  bool fails = false;
  for (size_t left = 1 + random->Below(10); left > 0; --left) {
    const std::string name = "i" + random->Name(8) + (random->OneIn(3) ? "_0.bin" : ".bin");
    std::vector<float> image(3 * map_floats);
    for (float &value : image) value = static_cast<float>(random->Below(8)) - 2.0F;
    if (random->OneIn(40)) image[random->Below(map_floats)] = random->OneIn(2) ? NAN : 3e38F;  // twice that is infinite
    if (random->OneIn(40)) image.resize(random->Below(image.size()));
    PutFloats(Join(options.input_path, name), image);
    inputs[name] = Bytes(image);
    image.resize(map_floats, NAN);
    for (float &value : image) value *= 2.0F;
    maps[name] = image;
  }
  bool is_in_the_way = false;
  for (const auto &[name, map] : maps) {
    is_in_the_way = is_in_the_way || (is_beside && maps.count(ResultName(name)) > 0);
    fails = fails || is_in_the_way || inputs[name].size() != 3 * map_floats * sizeof(float) ||
            !std::all_of(map.begin(), map.end(), [](float value) { return std::isfinite(value); });
  }
  const size_t calls = static_cast<size_t>(options.warmup) + (maps.size() + batch_size - 1) / batch_size;
  const size_t fails_at = random->OneIn(4) ? random->Below(calls) : calls;
  FuzzEngine engine(batch_size, map_floats, fails_at);
  fails = fails || fails_at < calls;
  const bool has_earlier = random->OneIn(2) && !is_beside;
  if (has_earlier) {
    MakeFolder(options.result_path);
    Put(Join(options.result_path, "scores.csv"), "earlier");
    for (const auto &[name, map] : maps) Put(Join(options.result_path, ResultName(name)), "earlier");
  }

  RunSummary summary;
  const std::string error = Thrown<Error>([&] { summary = RunPipeline(&engine, options, rule); });
  for (const auto &[name, content] : inputs) CHECK(Get(Join(options.input_path, name)) == content);
  CHECK(error.empty() != fails);
  if (is_in_the_way) CHECK(Entries(options.input_path).size() == inputs.size());
  if (is_in_the_way) return;
  Strings expected;
  for (const auto &[name, map] : maps) {
    expected.push_back(ResultName(name));
    if (is_beside) expected.push_back(name);
  }
  std::sort(expected.begin(), expected.end());
  if (error.empty()) {
    CHECK(summary.images == maps.size() && summary.batch_size == batch_size);
    CheckScores(Get(Join(options.result_path, "scores.csv")), maps, rule);
    for (const auto &[name, map] : maps) CHECK(Get(Join(options.result_path, ResultName(name))) == Bytes(map));
    expected.push_back("origin.json");
    expected.push_back("scores.csv");
    std::sort(expected.begin(), expected.end());
    CHECK(Entries(options.result_path) == expected);
    return;
  }
  const bool stopped_early = Contains(error, "the model expects");  // before anything of an earlier run is removed
  if (stopped_early) return;
  const Strings found = Entries(options.result_path);
  CHECK(std::includes(expected.begin(), expected.end(), found.begin(), found.end()));
  for (const auto &[name, map] : maps) {
    const std::string path = Join(options.result_path, ResultName(name));
    if (Exists(path)) CHECK(Get(path) == Bytes(map));
  }
}

// Pictures that were reported, then a kill at any byte of the journal or the lines, or damage.
void FuzzJournal(Random *random, const std::string &folder) {
  const std::string path = Join(folder, "journal"), lines_path = Join(folder, "lines");
  std::vector<std::pair<std::string, FileIdentity>> files;
  Strings states(1), journals(1);  // of the lines and the journal, after each file
  {
    Journal journal(path);
    LineFile lines(lines_path, true);
    journals[0] = Get(path);
    for (size_t count = 1 + random->Below(4); count > 0; --count) {
      const FileIdentity identity = {random->Next(), static_cast<int64_t>(random->Next()), files.size()};
      const std::string name = random->Name(12) + std::to_string(files.size());
      CHECK(journal.Claim(name, identity) && !journal.Claim(name, identity));
      journal.Report(name, identity, random->OneIn(2), random->Text(20) + "\n", &lines, false);
      files.emplace_back(name, identity);
      states.push_back(Get(lines_path));
      journals.push_back(Get(path));
    }
  }
  const size_t last = files.size() - 1;
  const bool is_damaged = random->OneIn(4);
  std::string text = journals.back();
  size_t written = states[last].size() + random->Below(states.back().size() - states[last].size() + 1);
  if (is_damaged) {
    text[random->Below(text.size())] = static_cast<char>(random->Below(256));
  } else if (random->OneIn(2)) {  // before the line is begun
    text.resize(journals[last].size() + random->Below(text.size() - journals[last].size() + 1));
    written = states[last].size();
  }
  Put(path, text);
  Put(lines_path, states.back().substr(0, written));
  const std::string error = Thrown<Error>([&] {
    Journal journal(path);
    LineFile lines(lines_path, true);
    journal.Settle(&lines);
    if (is_damaged) return;
    const bool is_whole = written == states.back().size();
    for (size_t i = 0; i <= last; ++i) {
      CHECK(journal.IsKnown(files[i].first, files[i].second) == (i < last || is_whole));
    }
    CHECK(Get(lines_path) == states[is_whole ? last + 1 : last]);
  });
  CHECK(is_damaged ? error.empty() || Contains(error, path) : error.empty());
}

// --- all of them

struct Target {
  const char *name;
  void (*fuzz)(Random *random, const std::string &folder);
  size_t weight;
  bool needs_folder;
  size_t inputs;
};

Target targets[] = {
    {"ParseOptions, one flag", FuzzOneFlag, 250, false, 0},
    {"ParseOptions", FuzzCommandLine, 250, false, 0},
    {"CsvField", FuzzCsvField, 180, false, 0},
    {"ResultName, Join", FuzzNames, 70, false, 0},
    {"Summarise", FuzzSummarise, 50, false, 0},
    {"ParseJson", FuzzJson, 100, false, 0},
    {"ReadFloats, CheckSize, CheckModelFile", FuzzReaders, 120, true, 0},
    {"ReadFloats of a changing file", FuzzChangingFile, 1, true, 0},
    {"ListInputs", FuzzListInputs, 30, true, 0},
    {"WriteFile, RemoveFile", FuzzWriteFile, 30, true, 0},
    {"MakeFolder", FuzzMakeFolder, 10, true, 0},
    {"RunPipeline", FuzzPipeline, 9, true, 0},
    {"Journal", FuzzJournal, 20, true, 0},
};

size_t Choose(Random *random) {
  size_t all = 0;
  for (const Target &target : targets) all += target.weight;
  size_t place = random->Below(all), which = 0;
  while (place >= targets[which].weight) place -= targets[which++].weight;
  return which;
}

int Main(const FuzzRange &range) {
  const TemporaryFolder scratch;
  const bool is_right = TryInputs(range, "fuzz_test", 60, [&](Random *random) {
    Target &target = targets[Choose(random)];
    ++target.inputs;
    fuzz_subject = target.name;
    const std::string folder = scratch / "input";
    if (target.needs_folder) ::mkdir(folder.c_str(), 0777);
    target.fuzz(random, folder);
    if (target.needs_folder) RemoveTree(folder);
  });
  for (const Target &target : targets) std::printf("%9zu inputs  %s\n", target.inputs, target.name);
  return is_right ? 0 : 1;
}

}  // namespace
}  // namespace stpm

int main(int argc, char *argv[]) { return stpm::Main(stpm::ParseFuzzRange(argc, argv, 1)); }
