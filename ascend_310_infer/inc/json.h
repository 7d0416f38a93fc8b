// A reader of strict JSON, as src/files.py reads it: UTF-8, no NaN, every key once.
#ifndef STPM_INC_JSON_H_
#define STPM_INC_JSON_H_

#include <string>
#include <vector>

namespace stpm {

struct Json {
  enum class Kind { kNull, kBool, kNumber, kString, kArray, kObject };

  Kind kind = Kind::kNull;
  bool boolean = false;
  double number = 0.0;
  std::string text;               // of a string
  std::vector<std::string> keys;  // of an object, in the order of the file
  std::vector<Json> values;       // of an object or an array

  // Returns the value of a key; nullptr if it is not there or this is no object.
  const Json *Find(const std::string &key) const;

  // Whether two values are the same; the order of an object's keys does not matter.
  bool operator==(const Json &other) const;
};

// Parses a text. Escapes from \udc80 to \udcff that belong to no pair become the bytes 0x80 to 0xff: that is how the
// Python programs write file names that are not UTF-8. Throws Error, which tells the place.
Json ParseJson(const std::string &text);

// Returns a text as a JSON string, with its quotes, as json.dumps of Python writes it: in ASCII, and of bytes that are
// no UTF-8 the escapes that ParseJson reads.
std::string JsonString(const std::string &text);

}  // namespace stpm

#endif  // STPM_INC_JSON_H_
