#include "inc/flags.h"

#include <cerrno>
#include <cstdlib>

namespace stpm {

void ParseFlags(int argc, char *const argv[], const Flags &flags, const Switches &switches) {
  // not getopt_long, which takes abbreviations
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto known = switches.find(word);
    if (known != switches.end()) {
      *known->second = true;
      if (word == "--help") return;
      continue;
    }
    if (word.size() < 2 || word[0] != '-' || word == "--") throw UsageError(word + ": unexpected argument");
    const size_t equals = word.find('=');
    const auto flag = flags.find(word.substr(0, equals));
    if (flag == flags.end()) throw UsageError(word + ": no such flag");
    if (equals == std::string::npos && i + 1 == argc) throw UsageError(word + ": a value is missing");
    flag->second(equals == std::string::npos ? argv[++i] : word.substr(equals + 1));
  }
}

int64_t ParseInteger(const std::string &flag, const std::string &text, int64_t minimum, int64_t maximum) {
  char *end = nullptr;
  errno = 0;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  const bool starts_well = !text.empty() && (text[0] == '-' || (text[0] >= '0' && text[0] <= '9'));
  if (!starts_well || *end != '\0' || errno != 0 || value < minimum || value > maximum) {
    throw UsageError(flag + ": expected a whole number from " + std::to_string(minimum) + " to " +
                     std::to_string(maximum) + ", got '" + text + "'");
  }
  return value;
}

double ParseNumber(const std::string &flag, const std::string &text, const std::function<bool(double)> &is_right,
                   const std::string &expected) {
  char *end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  // the texts that the Python programs take: no spaces, hexadecimal or infinite numbers
  const bool is_decimal = !text.empty() && text.find_first_not_of("0123456789.eE+-") == std::string::npos;
  if (!is_decimal || *end != '\0' || !is_right(number)) {
    throw UsageError(flag + ": expected a number " + expected + ", got '" + text + "'");
  }
  return number;
}

}  // namespace stpm
