// Command lines: flags with values, which are --name value or --name=value, and switches.
#ifndef STPM_INC_FLAGS_H_
#define STPM_INC_FLAGS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "inc/utils.h"

namespace stpm {

// The command line is wrong.
class UsageError : public Error {
 public:
  using Error::Error;
};

// What to do with a flag's value, by the flag's name.
using Flags = std::map<std::string, std::function<void(const std::string &)>>;

// By name, what becomes true where the switch is given.
using Switches = std::map<std::string, bool *>;

// Parses the words of a command line; abbreviations are none. What follows --help, a switch, is not looked at. Throws
// UsageError, which names the flag and the value and says what would be right.
void ParseFlags(int argc, char *const argv[], const Flags &flags, const Switches &switches);

// Parses a whole number. Throws UsageError, which names the flag.
int64_t ParseInteger(const std::string &flag, const std::string &text, int64_t minimum, int64_t maximum);

// Parses a decimal number that is_right. Throws UsageError, which says what was expected: "a number " and this.
double ParseNumber(const std::string &flag, const std::string &text, const std::function<bool(double)> &is_right,
                   const std::string &expected);

}  // namespace stpm

#endif  // STPM_INC_FLAGS_H_
