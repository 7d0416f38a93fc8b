// Random numbers and texts for tests.
#ifndef STPM_TESTS_RANDOM_H_
#define STPM_TESTS_RANDOM_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace stpm {

using Strings = std::vector<std::string>;

// Marsaglia's xorshift64*: the same numbers with every compiler, which the standard's distributions do not promise.
class Random {
 public:
  Random(uint64_t seed, uint64_t number)
      : state_((seed + 1) * 0x9E3779B97F4A7C15U ^ (number + 1) * 0xD1B54A32D192ED03U) {
    if (state_ == 0) state_ = 1;
    for (int i = 0; i < 4; ++i) Next();  // numbers that follow each other begin alike
  }

  uint64_t Next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545F4914F6CDD1DU;
  }
  size_t Below(size_t limit) { return static_cast<size_t>((Next() >> 16) % limit); }
  bool OneIn(size_t count) { return Below(count) == 0; }
  const std::string &Of(const Strings &words) { return words[Below(words.size())]; }

  // At most max_size characters, none of them NUL: any byte, or those that mean something to somebody.
  std::string Text(size_t max_size) {
    static const std::string special = ",\"\r\n\t '\\=-._/0aZ%\x80\xff";
    std::string text;
    const bool any = OneIn(2);
    for (size_t left = Below(max_size + 1); left > 0; --left) {
      text += any ? static_cast<char>(1 + Below(255)) : special[Below(special.size())];
    }
    return text;
  }

  // A name that a file can have.
  std::string Name(size_t max_size) {
    std::string name = Text(max_size);
    std::replace(name.begin(), name.end(), '/', '+');
    return name.empty() || name == "." || name == ".." ? "x" : name;
  }

 private:
  uint64_t state_;
};

}  // namespace stpm

#endif  // STPM_TESTS_RANDOM_H_
