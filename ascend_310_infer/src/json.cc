#include "inc/json.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>

#include "inc/utils.h"

namespace stpm {
namespace {

constexpr int kDeepest = 500;  // levels; Python's reader gives up at about 1000

class Parser {
 public:
  explicit Parser(const std::string &text) : text_(text) {}

  Json Document() {
    Json value = Value(0);
    SkipSpace();
    if (at_ != text_.size()) Fail("expected nothing more");
    return value;
  }

 private:
  [[noreturn]] void Fail(const std::string &what) const { throw Error(what + " at byte " + std::to_string(at_)); }

  // The next byte; NUL, which JSON has nowhere, at the end.
  unsigned char Peek() const { return at_ < text_.size() ? static_cast<unsigned char>(text_[at_]) : 0; }

  void SkipSpace() {
    while (at_ < text_.size() && std::strchr(" \t\n\r", text_[at_]) != nullptr && text_[at_] != '\0') ++at_;
  }

  bool Accept(char c) {
    SkipSpace();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  void Expect(char c) {
    if (!Accept(c)) Fail(std::string("expected '") + c + "'");
  }

  bool AcceptWord(const char *word) {
    if (text_.compare(at_, std::strlen(word), word) != 0) return false;
    at_ += std::strlen(word);
    return true;
  }

  Json Value(int depth) {
    if (depth > kDeepest) Fail("nested too deeply");
    SkipSpace();
    Json value;
    if (Peek() == '{') {
      value.kind = Json::Kind::kObject;
      Object(depth, &value);
    } else if (Peek() == '[') {
      value.kind = Json::Kind::kArray;
      Array(depth, &value);
    } else if (Peek() == '"') {
      value.kind = Json::Kind::kString;
      value.text = String();
    } else if (Peek() == '-' || IsDigit()) {
      value.kind = Json::Kind::kNumber;
      value.number = Number();
    } else if (AcceptWord("true")) {
      value.kind = Json::Kind::kBool;
      value.boolean = true;
    } else if (AcceptWord("false")) {
      value.kind = Json::Kind::kBool;
    } else if (!AcceptWord("null")) {
      Fail("expected a value");
    }
    return value;
  }

  void Object(int depth, Json *value) {
    std::set<std::string> keys;
    Expect('{');
    if (Accept('}')) return;
    do {
      SkipSpace();
      if (Peek() != '"') Fail("expected a key");
      value->keys.push_back(String());
      if (!keys.insert(value->keys.back()).second) Fail("'" + value->keys.back() + "' stands twice");
      Expect(':');
      value->values.push_back(Value(depth + 1));
    } while (Accept(','));
    Expect('}');
  }

  void Array(int depth, Json *value) {
    Expect('[');
    if (Accept(']')) return;
    do {
      value->values.push_back(Value(depth + 1));
    } while (Accept(','));
    Expect(']');
  }

  bool IsDigit() const { return Peek() >= '0' && Peek() <= '9'; }

  void Digits() {
    if (!IsDigit()) Fail("expected a digit");
    while (IsDigit()) ++at_;
  }

  double Number() {
    const size_t start = at_;
    if (Peek() == '-') ++at_;
    if (Peek() == '0') {
      ++at_;
    } else {
      Digits();
    }
    if (Peek() == '.') {
      ++at_;
      Digits();
    }
    if (Peek() == 'e' || Peek() == 'E') {
      ++at_;
      if (Peek() == '+' || Peek() == '-') ++at_;
      Digits();
    }
    return std::strtod(text_.substr(start, at_ - start).c_str(), nullptr);
  }

  std::string String() {
    std::string value;
    ++at_;  // the quote
    while (Peek() != '"') {
      if (Peek() == '\\') {
        ++at_;
        Escape(&value);
      } else if (Peek() < 0x20) {
        Fail(at_ == text_.size() ? "the text ends in a string" : "a control character in a string");
      } else {
        Character(&value);
      }
    }
    ++at_;
    return value;
  }

  // Appends a character that stands for itself. Its well-formed bytes: Unicode Standard, table 3-7.
  void Character(std::string *value) {
    const unsigned char first = Peek();
    size_t more = 0;
    unsigned char least = 0x80, most = 0xBF;  // of the second byte
    if (first >= 0xC2 && first <= 0xDF) {
      more = 1;
    } else if (first >= 0xE0 && first <= 0xEF) {
      more = 2;
      if (first == 0xE0) least = 0xA0;
      if (first == 0xED) most = 0x9F;
    } else if (first >= 0xF0 && first <= 0xF4) {
      more = 3;
      if (first == 0xF0) least = 0x90;
      if (first == 0xF4) most = 0x8F;
    } else if (first >= 0x80) {
      Fail("not UTF-8");
    }
    *value += text_[at_++];
    for (; more > 0; --more) {
      if (Peek() < least || Peek() > most) Fail("not UTF-8");
      *value += text_[at_++];
      least = 0x80;
      most = 0xBF;
    }
  }

  void Escape(std::string *value) {
    static const std::string kNames = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
    const size_t which = kNames.find(static_cast<char>(Peek()));
    if (which != std::string::npos) {
      ++at_;
      *value += kMeanings[which];
    } else if (Peek() == 'u') {
      ++at_;
      uint32_t code = FourDigits();
      if (code >= 0xD800 && code <= 0xDBFF && text_.compare(at_, 2, "\\u") == 0) {
        const size_t second = at_;
        at_ += 2;
        const uint32_t low = FourDigits();
        if (low >= 0xDC00 && low <= 0xDFFF) {
          code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        } else {
          at_ = second;  // a character of its own
        }
      }
      Append(code, value);
    } else {
      Fail("an unknown escape");
    }
  }

  uint32_t FourDigits() {
    static const std::string kDigits = "0123456789abcdef0123456789ABCDEF";
    uint32_t code = 0;
    for (int i = 0; i < 4; ++i) {
      const size_t which = kDigits.find(static_cast<char>(Peek()));
      if (which == std::string::npos) Fail("expected four hexadecimal digits");
      code = code * 16 + static_cast<uint32_t>(which % 16);
      ++at_;
    }
    return code;
  }

  static void Append(uint32_t code, std::string *value) {
    const auto byte = [&](uint32_t bits) { *value += static_cast<char>(static_cast<unsigned char>(bits)); };
    if (code < 0x80) {
      byte(code);
    } else if (code < 0x800) {
      byte(0xC0U | code >> 6);
      byte(0x80U | (code & 0x3FU));
    } else if (code >= 0xDC80 && code <= 0xDCFF) {
      byte(code & 0xFFU);
    } else if (code < 0x10000) {
      byte(0xE0U | code >> 12);
      byte(0x80U | (code >> 6 & 0x3FU));
      byte(0x80U | (code & 0x3FU));
    } else {
      byte(0xF0U | code >> 18);
      byte(0x80U | (code >> 12 & 0x3FU));
      byte(0x80U | (code >> 6 & 0x3FU));
      byte(0x80U | (code & 0x3FU));
    }
  }

  const std::string &text_;
  size_t at_ = 0;
};

// Finds the character at a place of a text: its code, or 0xdc80 to 0xdcff for a byte that belongs to none. Returns how
// many bytes it has.
size_t Decode(const std::string &text, size_t at, uint32_t *code) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
  const unsigned first = byte(at);
  *code = first;
  if (first < 0x80) return 1;
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  uint32_t found = first & (0xFFU >> (length + 1));
  bool is_right = first >= 0xC2 && first <= 0xF4;
  for (size_t i = 1; i < length; ++i) {
    is_right = is_right && (byte(at + i) & 0xC0U) == 0x80;
    found = found << 6 | (byte(at + i) & 0x3FU);
  }
  // neither longer than need be, nor half of a pair, nor beyond the last one
  const bool is_short = found >= (length == 2 ? 0x80U : length == 3 ? 0x800U : 0x10000U);
  if (is_right && is_short && (found < 0xD800 || found > 0xDFFF) && found <= 0x10FFFF) {
    *code = found;
    return length;
  }
  *code = 0xDC00 + first;
  return 1;
}

void Escape(uint32_t unit, std::string *text) {
  char escape[8];
  std::snprintf(escape, sizeof(escape), "\\u%04x", unit & 0xFFFFU);
  *text += escape;
}

// Appends a character of a JSON string.
void Quote(uint32_t code, std::string *text) {
  static const std::string kNames = "\"\\bfnrt", kMeanings = "\"\\\b\f\n\r\t";
  const size_t which = code < 0x80 ? kMeanings.find(static_cast<char>(code)) : std::string::npos;
  if (which != std::string::npos) {
    *text += '\\';
    *text += kNames[which];
  } else if (code >= 0x20 && code < 0x7F) {
    *text += static_cast<char>(code);
  } else if (code < 0x10000) {
    Escape(code, text);
  } else {
    Escape(0xD800 + ((code - 0x10000) >> 10), text);
    Escape(0xDC00 + ((code - 0x10000) & 0x3FF), text);
  }
}

}  // namespace

const Json *Json::Find(const std::string &key) const {
  for (size_t i = 0; i < keys.size(); ++i) {
    if (keys[i] == key) return &values[i];
  }
  return nullptr;
}

bool Json::operator==(const Json &other) const {
  if (kind != other.kind || values.size() != other.values.size()) return false;
  switch (kind) {
    case Kind::kNull:
      return true;
    case Kind::kBool:
      return boolean == other.boolean;
    case Kind::kNumber:
      return !(number < other.number) && !(number > other.number);
    case Kind::kString:
      return text == other.text;
    case Kind::kArray:
      return values == other.values;
    case Kind::kObject:
      break;
  }
  for (size_t i = 0; i < keys.size(); ++i) {
    const Json *const value = other.Find(keys[i]);
    if (value == nullptr || !(values[i] == *value)) return false;
  }
  return true;
}

std::string JsonString(const std::string &text) {
  std::string quoted = "\"";
  for (size_t i = 0; i < text.size();) {
    uint32_t code = 0;
    const size_t length = Decode(text, i, &code);
    Quote(code, &quoted);
    i += length;
  }
  return quoted + '"';
}

Json ParseJson(const std::string &text) { return Parser(text).Document(); }

}  // namespace stpm
