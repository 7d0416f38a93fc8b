"""Folders that are laid out like the vendor's cloud-side package of MindSpore Lite, cheap to make."""

from tests.conftest import ROOT

# Where the package has what the wheel for Python keeps in one folder, by the vendor's cmake/package_lite.cmake.
_FOLDERS = {
    "runtime/lib": (
        "libmindspore-extendrt_python.so", "libmsplugin-ge-litert_python.so", "libruntime_convert_plugin_python.so",
        "libmindspore_core.so", "libmindspore_glog.so.0",
    ),
    "runtime/third_party/dnnl": ("libdnnl.so.2",),
    "tools/converter/lib": (
        "libmindspore_converter.so", "libmslite_converter_plugin.so", "libopencv_core.so.4.5",
        "libopencv_imgcodecs.so.4.5", "libopencv_imgproc.so.4.5",
    ),
}  # fmt: skip
# By these names the scripts and programs know them; the wheel's libraries look for each other by the wheel's.
_OWN_NAMES = {
    "libmindspore-lite.so": "libmindspore-extendrt_python.so",
    "libruntime_convert_plugin.so": "libruntime_convert_plugin_python.so",
}
# Notes its words, the configuration and where it looks for libraries; "converts" by adding a line.
CONVERTER = """#!/bin/bash
printf '%s\\n' "$@" "LD_LIBRARY_PATH=$LD_LIBRARY_PATH" >>"$CALLS"
for word; do declare "${word:2}"; done
cat -- "$configFile" >>"$CALLS"
echo "it says this"
[[ -z ${CONVERTER_STATUS:-} ]] || exit "$CONVERTER_STATUS"
[[ -n ${CONVERTER_WRITES_NOTHING:-} ]] || { cat -- "$modelFile"; echo converted; } >"$outputFile.mindir"
"""


def make_package(folder):
    """Make one with empty libraries, the headers of the tests' own library and a stand-in for the converter."""
    for name in ("libmindspore-lite.so", "libruntime_convert_plugin.so"):
        (folder / "runtime/lib").mkdir(parents=True, exist_ok=True)
        (folder / "runtime/lib" / name).touch()
    (folder / "runtime/include").symlink_to(ROOT / "ascend_310_infer/tests/fake_lite/include")
    (folder / "tools/converter/lib").mkdir(parents=True)
    (folder / "tools/converter/lib/libmindspore_converter.so").touch()
    converter = folder / "tools/converter/converter/converter_lite"
    converter.parent.mkdir()
    converter.write_text(CONVERTER)
    converter.chmod(0o755)
    return folder


def make_working_package(folder, wheel):
    """Make one that computes on CPU, of links to the files of an unpacked wheel."""
    for name, libraries in _FOLDERS.items():
        (folder / name).mkdir(parents=True)
        for library in libraries:
            (folder / name / library).symlink_to(wheel / "lib" / library)
    for name, library in _OWN_NAMES.items():
        (folder / "runtime/lib" / name).symlink_to(wheel / "lib" / library)
    (folder / "runtime/include").symlink_to(wheel / "include")
    (folder / ".commit_id").symlink_to(wheel / ".commit_id")
    return folder
