// The little that these tests need: checks that count and report, and a folder that is removed at the end.
#ifndef STPM_TESTS_CHECK_H_
#define STPM_TESTS_CHECK_H_

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace stpm {

inline int failures = 0;

inline void Check(bool ok, const char *text, const char *file, int line) {
  if (ok) return;
  ++failures;
  std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, text);
}

// Returns what() of the exception that a call throws; "" if it throws none of this type.
template <typename Exception, typename Call>
std::string Thrown(Call call) {
  try {
    call();
  } catch (const Exception &error) {
    return error.what();
  }
  return "";
}

inline bool Contains(const std::string &text, const std::string &part) {
  return !part.empty() && text.find(part) != std::string::npos;
}

// A new folder below TMPDIR, or /tmp.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    const char *const base = std::getenv("TMPDIR");
    path_ = std::string(base == nullptr ? "/tmp" : base) + "/stpm_test_XXXXXX";
    if (mkdtemp(&path_[0]) == nullptr) std::abort();
  }
  ~TemporaryFolder() {
    if (std::system(("rm -rf '" + path_ + "'").c_str()) != 0)
      std::fprintf(stderr, "%s is left behind\n", path_.c_str());
  }
  TemporaryFolder(const TemporaryFolder &) = delete;
  TemporaryFolder &operator=(const TemporaryFolder &) = delete;

  std::string operator/(const std::string &name) const { return path_ + "/" + name; }
  const std::string &path() const { return path_; }

 private:
  std::string path_;
};

inline void Put(const std::string &path, const std::string &content) {
  std::ofstream(path, std::ios::binary) << content;
}

inline void PutFloats(const std::string &path, const std::vector<float> &values) {
  Put(path, std::string(reinterpret_cast<const char *>(values.data()), values.size() * sizeof(float)));
}

inline std::string Get(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

}  // namespace stpm

#define CHECK(condition) ::stpm::Check((condition), #condition, __FILE__, __LINE__)

#endif  // STPM_TESTS_CHECK_H_
