#include "inc/sidecar.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "inc/json.h"
#include "inc/sha256.h"
#include "inc/utils.h"
#include "tests/check.h"

namespace stpm {
namespace {

std::string HashOf(const std::string &text, size_t part) {
  Sha256 hash;
  for (size_t i = 0; i < text.size(); i += part) hash.Update(text.data() + i, std::min(part, text.size() - i));
  return hash.HexDigest();
}

// The examples of FIPS 180-2 (appendix B) and of NIST's page on it, and around the ends of a block what Python gives.
void TestSha256() {
  CHECK(HashOf("", 1) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(HashOf("abc", 3) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(HashOf("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 7) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(HashOf(std::string(1000000, 'a'), 4099) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  const std::pair<size_t, const char *> ends[] = {
      {55, "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"},
      {56, "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a"},
      {63, "7d3e74a05d7db15bce4ad9ec0658ea98e3f06eeecf16b4c6fff2da457ddc2f34"},
      {64, "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"},
      {65, "635361c48bb9eab14198e76ea8ab7f1a41685d6ad62aa9146d301d4f17eb0ae0"},
      {119, "31eba51c313a5c08226adf18d4a359cfdfd8d2e816b13f4af952f7ea6584dcfb"},
      {120, "2f3d335432c70b580af0e8e1b3674a7c020d683aa5f73aaaedfdc55af904c21c"},
  };
  for (const auto &[size, expected] : ends) {
    CHECK(HashOf(std::string(size, 'a'), size) == expected && HashOf(std::string(size, 'a'), 1) == expected);
  }
}

void TestJson() {
  const Json json = ParseJson(" {\"a\" : [1, -2.5e1, true, null, {}],\n\"b\\u00e9\\ud83d\\ude00\\\\\": \"x\\/\\n\"}\t");
  CHECK(json.kind == Json::Kind::kObject && json.keys.size() == 2 && json.Find("c") == nullptr);
  const Json *const list = json.Find("a");
  CHECK(list != nullptr && list->kind == Json::Kind::kArray && list->values.size() == 5);
  CHECK(list->values[0].number == 1.0 && list->values[1].number == -25.0 && list->values[2].boolean);
  CHECK(list->values[3].kind == Json::Kind::kNull && list->values[4].kind == Json::Kind::kObject);
  const Json *const text = json.Find("b\xc3\xa9\xf0\x9f\x98\x80\\");
  CHECK(text != nullptr && text->kind == Json::Kind::kString && text->text == "x/\n");
  // a byte of a file name that is not UTF-8, as Python writes it; other halves of pairs stand for themselves
  CHECK(ParseJson("\"\\udcff\"").text == "\xff");
  CHECK(ParseJson("\"\\ud83d\\u0041\"").text ==
        "\xed\xa0\xbd"
        "A");
  CHECK(ParseJson(std::string(500, '[') + std::string(500, ']')).values.size() == 1);
}

void TestBadJson() {
  const auto thrown = [](const std::string &text) { return Thrown<Error>([&] { ParseJson(text); }); };
  for (const char *text : {"",
                           " ",
                           "{",
                           "{\"a\"}",
                           "{\"a\":}",
                           "{\"a\":1,}",
                           "{1:2}",
                           "[1",
                           "[1,]",
                           "[1 2]",
                           "1 2",
                           "tru",
                           "nan",
                           "NaN",
                           "Infinity",
                           "-",
                           "01",
                           "1.",
                           ".5",
                           "+1",
                           "1e",
                           "0x1",
                           "'a'",
                           "\"a",
                           "\"\\x\"",
                           "\"\\u12\"",
                           "\"\\u12g4\"",
                           "\"\t\"",
                           "\xef\xbb\xbf{}",
                           "\"\xff\"",
                           "\"\xc0\xaf\"",
                           "\"\xed\xa0\x80\"",
                           "\"\xf4\x90\x80\x80\"",
                           "\"\xc3\"",
                           "{}\xa0"}) {
    CHECK(Contains(thrown(text), " at byte "));
  }
  CHECK(Contains(thrown("{\"a\":1,\"a\":1}"), "'a' stands twice"));
  CHECK(Contains(thrown(std::string("\"\0\"", 3)), "control character"));
  CHECK(Contains(thrown(std::string(100000, '[')), "nested too deeply"));
  CHECK(thrown("[1, x]") == "expected a value at byte 4");
}

void TestSidecarPath() {
  CHECK(SidecarPath("a.b/c.d.mindir") == "a.b/c.d.json" && SidecarPath("a.b/c") == "a.b/c.json");
  CHECK(SidecarPath("c.mindir") == "c.json" && SidecarPath("a/.hidden") == "a/.hidden.json");
}

void TestReadSidecar() {
  const TemporaryFolder folder;
  const std::string model = folder / "a.mindir", path = folder / "a.json";
  const auto checked = [&](const std::string &content) {
    Put(path, content);
    return Thrown<Error>([&] { ReadSidecar(model); });
  };
  const auto describe = [](const std::string &name, const std::string &sha256) {
    return "{\"format\": 1, \"exports\": {\"" + name + "\": {\"sha256\": \"" + sha256 + "\"}}}";
  };
  const std::string right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  Put(model, "abc");
  CHECK(Contains(ReadSidecar(model).warning, path + ": is missing, so that a.mindir is used unchecked"));
  CHECK(checked(describe("a.mindir", right)).empty());
  Put(model, "abd");
  const std::string damaged = model + ": is damaged, or is not the file that a.json describes; export it again";
  CHECK(checked(describe("a.mindir", right)) == damaged);
  Put(model, "abc");
  CHECK(checked("{\"format\": 1, \"exports\": {\"a.mindir\": {\"sha256\": 1}}}") == damaged);
  const std::string undescribed = path + ": does not describe a.mindir; export it again";
  CHECK(checked(describe("a.onnx", right)) == undescribed);
  for (const char *text : {"{\"format\": 1}", "{\"format\": 1, \"exports\": {\"a.mindir\": null}}",
                           "{\"format\": 1, \"exports\": [\"a.mindir\"]}"}) {
    CHECK(checked(text) == undescribed);
  }
  CHECK(Contains(checked("{\"format\": 2, \"exports\": {}}"), path + ": is not of format 1"));
  CHECK(Contains(checked("[]"), path + ": is not of format 1"));
  CHECK(checked("{]") == path + ": not valid JSON: expected a key at byte 1");
  RemoveFile(path);
  CHECK(::symlink("nowhere", path.c_str()) == 0);
  CHECK(Contains(Thrown<Error>([&] { ReadSidecar(model); }), path + ": cannot be read"));
  // a name that is not UTF-8
  Put(folder / "\xff.mindir", "abc");
  Put(folder / "\xff.json", describe("\\udcff.mindir", right));
  CHECK(ReadSidecar(folder / "\xff.mindir").warning.empty());
}

void TestContent() {
  const TemporaryFolder folder;
  const std::string model = folder / "a.mindir";
  Put(model, "abc");
  const auto put = [&](const std::string &more) {
    Put(folder / "a.json",
        "{\"format\": 1, \"exports\": {\"a.mindir\": {\"sha256\": "
        "\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"}}" +
            more + "}");
  };
  const auto thrown = [&](const std::string &more) {
    put(", " + more);
    return Thrown<Error>([&] { ReadSidecar(model); });
  };
  put("");
  Sidecar sidecar = ReadSidecar(model);
  CHECK(!sidecar.image_size && !sidecar.rule.threshold && sidecar.rule.min_area == 1 && !sidecar.rule.review &&
        !sidecar.selftest);
  put(", \"image_size\": 256, \"threshold\": null");
  sidecar = ReadSidecar(model);
  CHECK(sidecar.image_size == (ImageSize{256, 256}) && !sidecar.rule.threshold);
  put(", \"image_size\": [320, 1024]");
  sidecar = ReadSidecar(model);
  CHECK(sidecar.image_size == (ImageSize{320, 1024}) && Text(*sidecar.image_size) == "320x1024");
  CHECK(Text(ImageSize{64, 64}) == "64");
  put(", \"threshold\": 1.00000005960464477540000000000000000000000000001, \"selftest\": {\"input\": \"pattern-1\", "
      "\"image_size\": 64, \"score\": 0.5, \"map\": [[0, 63, 0.25], [7, 5, -1e-3]]}");
  sidecar = ReadSidecar(model);
  CHECK(sidecar.rule.threshold == 1.0F);  // to the double and from there to the float, as Python goes
  CHECK(sidecar.selftest && sidecar.selftest->image_size == (ImageSize{64, 64}) && sidecar.selftest->score == 0.5);
  CHECK(sidecar.selftest->map.size() == 2 && sidecar.selftest->map[0].x == 63 && sidecar.selftest->map[1].y == 7);
  CHECK(sidecar.selftest->map[1].value == -1e-3);
  for (const char *value : {"\"1\"", "true", "0", "-1", "1e39", "1e-40", "[1]", "{}"}) {
    CHECK(Contains(thrown("\"threshold\": " + std::string(value)),
                   "a.json: threshold is wrong, expected null or a number from 1.17549436e-38 to 3.4e38"));
  }
  put(", \"min_area\": 12, \"review\": 0.8");
  sidecar = ReadSidecar(model);
  CHECK(sidecar.rule.min_area == 12 && sidecar.rule.review == 0.8F);
  for (const char *value : {"\"1\"", "null", "0", "-1", "1.5", "1e39", "[1]", "true"}) {
    CHECK(Contains(thrown("\"min_area\": " + std::string(value)), "a.json: min_area is wrong, expected a number of"));
  }
  for (const char *value : {"\"0.8\"", "0", "1", "-0.5", "[0.8]", "true"}) {
    CHECK(Contains(thrown("\"review\": " + std::string(value)), "a.json: review is wrong, expected a number above 0"));
  }
  for (const char *value : {"\"256\"", "null", "0", "16", "40", "256.5", "8192", "1e300", "[]", "[64]", "[64, 40]",
                            "[64, 64, 64]", "[64, \"64\"]", "[[64, 64], 64]"}) {
    CHECK(
        Contains(thrown("\"image_size\": " + std::string(value)), "a.json: image_size is wrong, expected a multiple"));
  }
  for (const char *value :
       {"null", "[]", "{}", "{\"input\": \"pattern-1\", \"image_size\": 64, \"score\": 0.5, \"map\": []}",
        "{\"input\": \"pattern-1\", \"image_size\": 64, \"score\": 0, \"map\": [[0, 0, 1]]}",
        "{\"input\": \"pattern-1\", \"image_size\": 64, \"score\": 1, \"map\": [[0, 0, 0]]}",
        "{\"input\": \"pattern-1\", \"image_size\": 64, \"score\": 1, \"map\": [[0, 64, 1]]}",
        "{\"input\": \"pattern-1\", \"image_size\": 64, \"score\": 1, \"map\": [[0, -1, 1]]}",
        "{\"input\": \"pattern-1\", \"image_size\": 64, \"score\": 1, \"map\": [[0, 0.5, 1]]}",
        "{\"input\": \"pattern-1\", \"image_size\": 64, \"score\": 1, \"map\": [[0, 0]]}",
        "{\"input\": \"pattern-1\", \"image_size\": 64, \"score\": 1, \"map\": [[0, 0, \"1\"]]}",
        "{\"input\": \"pattern-1\", \"image_size\": 64, \"score\": 1e99, \"map\": [[0, 0, 1]]}",
        "{\"input\": \"pattern-1\", \"image_size\": 1e99, \"score\": 1, \"map\": [[0, 0, 1]]}",
        "{\"input\": 1, \"image_size\": 64, \"score\": 1, \"map\": [[0, 0, 1]]}"}) {
    CHECK(
        Contains(thrown("\"selftest\": " + std::string(value)), "a.json: selftest is damaged; export the model again"));
  }
  CHECK(Contains(thrown("\"selftest\": {\"input\": \"pattern-2\", \"image_size\": 64, \"score\": 1, \"map\": [1]}"),
                 "a.json: selftest has the input 'pattern-2', this program makes pattern-1; "));
}

}  // namespace
}  // namespace stpm

int main() {
  stpm::TestSha256();
  stpm::TestJson();
  stpm::TestBadJson();
  stpm::TestSidecarPath();
  stpm::TestReadSidecar();
  stpm::TestContent();
  return stpm::failures == 0 ? 0 : 1;
}
