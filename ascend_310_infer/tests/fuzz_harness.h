// What programs that try random inputs share: whatever goes wrong with an input, they say how to repeat it.
#ifndef STPM_TESTS_FUZZ_HARNESS_H_
#define STPM_TESTS_FUZZ_HARNESS_H_

#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "tests/check.h"
#include "tests/random.h"

// Of the sanitizers' runtime, where there is one: what it finds ends the program on the spot.
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace stpm {

// Which inputs are tried: count of them, from number first on. An input is a function of seed and number.
struct FuzzRange {
  uint64_t seed = 0, count = 20000, first = 0;
};

// Returns the range of a command line that ends in [SEED [COUNT [FIRST]]], from the word at a place on.
inline FuzzRange ParseFuzzRange(int argc, char *const argv[], int place) {
  FuzzRange range;
  for (uint64_t *const number : {&range.seed, &range.count, &range.first}) {
    if (argc > place) *number = std::strtoull(argv[place++], nullptr, 10);
  }
  return range;
}

// The input under way: what it is for, and how the program is called for it.
inline std::string fuzz_subject, fuzz_command;
inline uint64_t fuzz_seed = 0, fuzz_number = 0;

inline void TellFuzzInput() {
  std::fprintf(stderr, "input: %s; repeat it with: %s %llu 1 %llu\n", fuzz_subject.c_str(), fuzz_command.c_str(),
               static_cast<unsigned long long>(fuzz_seed), static_cast<unsigned long long>(fuzz_number));
}

// Tries inputs until one fails a check, throws, or takes too long, which ends the program. Returns whether none did.
//   command: the program's words before the range
//   seconds: how long an input may take
//   fuzz: called with a pointer to the input's random numbers; sets fuzz_subject
template <typename Fuzz>
bool TryInputs(const FuzzRange &range, const std::string &command, unsigned seconds, Fuzz fuzz) {
  std::signal(SIGALRM, [](int) {
    std::fputs("it hangs\n", stderr);
    TellFuzzInput();
    std::_Exit(1);
  });
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(TellFuzzInput);
  fuzz_command = command;
  fuzz_seed = range.seed;
  for (fuzz_number = range.first; fuzz_number < range.first + range.count; ++fuzz_number) {
    ::alarm(seconds);
    Random random(fuzz_seed, fuzz_number);
    try {
      fuzz(&random);
    } catch (const std::exception &error) {
      CHECK(!"no exception but those that the headers promise");
      std::fprintf(stderr, "got: %s\n", error.what());
    }
    if (failures > 0) {
      TellFuzzInput();
      return false;
    }
  }
  return true;
}

}  // namespace stpm

#endif  // STPM_TESTS_FUZZ_HARNESS_H_
