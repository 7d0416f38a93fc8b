#include "inc/tiff_tags.h"

#include <cstring>
#include <limits>

namespace stpm {
namespace {

enum Type : uint16_t {
  kByte = 1,
  kAscii = 2,
  kShort = 3,
  kLong = 4,
  kRational = 5,
  kSignedByte = 6,
  kUndefined = 7,
  kSignedShort = 8,
  kSignedLong = 9,
  kSignedRational = 10,
  kFloat = 11,
  kDouble = 12,
  kIfd = 13,
  kLong8 = 16,
};

// Returns the bytes of a value; 0 of types that are passed over.
size_t SizeOf(uint16_t type) {
  switch (type) {
    case kByte:
    case kAscii:
    case kSignedByte:
    case kUndefined:
      return 1;
    case kShort:
    case kSignedShort:
      return 2;
    case kLong:
    case kSignedLong:
    case kFloat:
    case kIfd:
      return 4;
    case kRational:
    case kSignedRational:
    case kDouble:
    case kLong8:
      return 8;
    default:
      return 0;
  }
}

bool IsInteger(uint16_t type) {
  switch (type) {
    case kShort:
    case kLong:
    case kSignedByte:
    case kSignedShort:
    case kSignedLong:
    case kIfd:
    case kLong8:
      return true;
    default:
      return false;
  }
}

template <typename To, typename From>
To BitsAs(From bits) {
  static_assert(sizeof(To) == sizeof(From));
  To value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

[[noreturn]] void RefuseTag(uint16_t tag, const std::string &expected) {
  Refuse("its tag " + std::to_string(tag) + " is damaged, expected " + expected);
}

}  // namespace

uint64_t TiffHeader::Number(const uint8_t *at, size_t size) const {
  uint64_t number = 0;
  for (size_t i = 0; i < size; ++i) number = number << 8 | at[is_big_endian ? i : size - 1 - i];
  return number;
}

std::optional<TiffHeader> ReadTiffHeader(const Bytes &bytes) {
  if (bytes.size < 8) return std::nullopt;
  TiffHeader header;
  // with the 42 the wrong way round, too, as some programs write it
  for (const char *start : {"MM\0*", "MM*\0", "II*\0", "II\0*", "MM\0+", "II+\0"}) {
    if (std::memcmp(bytes.data, start, 4) != 0) continue;
    header.is_big_endian = *start == 'M';
    header.is_big_tiff = bytes.data[2] == '+';  // as Pillow tells it, so that big-endian ones are read by 32 bits
    if (header.is_big_tiff && bytes.size < 16) return std::nullopt;
    header.first = header.is_big_tiff ? header.Number(bytes.data + 8, 8) : header.Number(bytes.data + 4, 4);
    return header;
  }
  return std::nullopt;
}

TiffTags::TiffTags(const Bytes &bytes, const TiffHeader &header, uint64_t place)
    : header_(header), place_(place), next_(header.first) {
  const size_t word = header.is_big_tiff ? 8 : 4;  // a place, or what fits into an entry
  const size_t count_size = header.is_big_tiff ? 8 : 2;
  const size_t entry_size = 4 + 2 * word;
  if (!bytes.Has(place, count_size)) return;
  uint64_t at = place + count_size, behind = 0;
  for (uint64_t left = header.Number(bytes.data + place, count_size); left > 0; --left, at += entry_size) {
    if (!bytes.Has(at, entry_size)) return;
    const uint8_t *const entry = bytes.data + at;
    const auto number = static_cast<uint16_t>(header.Number(entry, 2));
    const auto type = static_cast<uint16_t>(header.Number(entry + 2, 2));
    const uint64_t count = header.Number(entry + 4, word);
    const size_t value_size = SizeOf(type);
    if (tags_.count(number) > 0 || value_size == 0 || count == 0) continue;
    const uint8_t *data = entry + 4 + word;
    if (count > word / value_size) {
      // all values together must fit into the file, however they overlap
      if (count > (bytes.size - behind) / value_size) {
        behind = bytes.size;
        continue;
      }
      behind += count * value_size;
      const uint64_t offset = header.Number(data, word);
      if (offset >> 63 != 0) continue;
      if (!bytes.Has(offset, count * value_size)) return;
      data = bytes.data + offset;
    }
    tags_[number] = {type, static_cast<size_t>(count), data};
  }
  if (bytes.Has(at, word)) next_ = header.Number(bytes.data + at, word);
}

const TiffTags::Tag *TiffTags::Find(uint16_t tag) const {
  const auto found = tags_.find(tag);
  return found == tags_.end() ? nullptr : &found->second;
}

std::vector<int64_t> TiffTags::IntegersOf(const Tag &tag) const {
  std::vector<int64_t> values;
  const size_t size = SizeOf(tag.type);
  for (size_t i = 0; i < tag.count; ++i) {
    const uint64_t bits = header_.Number(tag.data + i * size, size);
    int64_t value = static_cast<int64_t>(std::min<uint64_t>(bits, std::numeric_limits<int64_t>::max()));
    if (tag.type == kSignedByte) value = BitsAs<int8_t>(static_cast<uint8_t>(bits));
    if (tag.type == kSignedShort) value = BitsAs<int16_t>(static_cast<uint16_t>(bits));
    if (tag.type == kSignedLong) value = BitsAs<int32_t>(static_cast<uint32_t>(bits));
    values.push_back(value);
  }
  return values;
}

std::optional<std::vector<int64_t>> TiffTags::Integers(uint16_t tag) const {
  const Tag *const found = Find(tag);
  if (found == nullptr) return std::nullopt;
  if (!IsInteger(found->type)) RefuseTag(tag, "whole numbers");
  return IntegersOf(*found);
}

int64_t TiffTags::Integer(uint16_t tag, int64_t usual) const {
  const auto values = Integers(tag);
  return values ? values->front() : usual;
}

std::optional<int64_t> TiffTags::AnyInteger(uint16_t tag) const {
  const Tag *const found = Find(tag);
  if (found == nullptr || !IsInteger(found->type)) return std::nullopt;
  return IntegersOf({found->type, 1, found->data}).front();
}

std::optional<std::vector<double>> TiffTags::Numbers(uint16_t tag) const {
  const Tag *const found = Find(tag);
  if (found == nullptr) return std::nullopt;
  std::vector<double> values;
  if (IsInteger(found->type)) {
    for (const int64_t value : IntegersOf(*found)) values.push_back(static_cast<double>(value));
    return values;
  }
  const size_t size = SizeOf(found->type);
  for (size_t i = 0; i < found->count; ++i) {
    const uint8_t *const at = found->data + i * size;
    const auto upper = static_cast<uint32_t>(header_.Number(at, size == 8 ? 4 : size));
    const auto lower = size == 8 ? static_cast<uint32_t>(header_.Number(at + 4, 4)) : 0U;
    switch (found->type) {
      case kRational:  // 0 / 0 is no number, and equal to none
        values.push_back(lower == 0 ? std::numeric_limits<double>::quiet_NaN() : static_cast<double>(upper) / lower);
        break;
      case kSignedRational:
        values.push_back(lower == 0 ? std::numeric_limits<double>::quiet_NaN()
                                    : static_cast<double>(BitsAs<int32_t>(upper)) / BitsAs<int32_t>(lower));
        break;
      case kFloat:
        values.push_back(static_cast<double>(BitsAs<float>(upper)));
        break;
      case kDouble:
        values.push_back(BitsAs<double>(header_.Number(at, 8)));
        break;
      default:
        RefuseTag(tag, "numbers");
    }
  }
  return values;
}

std::optional<Bytes> TiffTags::Text(uint16_t tag) const {
  const Tag *const found = Find(tag);
  if (found == nullptr || (found->type != kByte && found->type != kUndefined)) return std::nullopt;
  return Bytes{found->data, found->count};
}

}  // namespace stpm
