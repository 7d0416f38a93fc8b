# The vendor's MindSpore Lite package, and the device it computes on; sourced after common.sh, never run.
# shellcheck shell=bash

# present_device: print Ascend where its driver is loaded, else CPU. STPM_DAVINCI names another path to look for; the
# C++ program looks there, too.
present_device() {
  if [[ -e ${STPM_DAVINCI:-/dev/davinci_manager} ]]; then echo Ascend; else echo CPU; fi
}

# require_package DEVICE: die unless the inference library for that device is at hand, or, for the CPU, can be fetched.
# The vendor's packages for servers (cloud-side) and for phones have the same name and both hold libmindspore-lite.so;
# the latter lack the library that converts a MINDIR as it is loaded, whatever the device.
require_package() {
  local home=${MS_LITE_HOME:-} lib file
  if [[ -z $home ]]; then
    [[ $1 == CPU ]] || die "DEVICE_TARGET $1: MS_LITE_HOME is not set, and the library that is fetched without it" \
      "computes on CPU alone; unpack the vendor's cloud-side package, then" \
      "export MS_LITE_HOME=/path/to/mindspore-lite-VERSION-linux-ARCH (docs/ascend.md), or choose CPU"
    return 0
  fi
  lib=$home/runtime/lib
  [[ -f $lib/libmindspore-lite.so ]] ||
    die "$lib/libmindspore-lite.so: no such file; MS_LITE_HOME must be an unpacked MindSpore Lite package"
  [[ -f $lib/libruntime_convert_plugin.so ]] ||
    die "$lib/libruntime_convert_plugin.so: no such file; MS_LITE_HOME $home is not the cloud-side package, which alone" \
      "reads MINDIR: take the one that the download page calls \"cloud-side\" (docs/ascend.md)"
  file=$home/tools/converter/lib/libmindspore_converter.so
  [[ -f $file ]] ||
    die "$file: no such file; libruntime_convert_plugin.so needs it: unpack the whole package"
}

# package_version: print the version of the package in MS_LITE_HOME. It stands in the folder's name alone, and its
# commit in .commit_id: no header has it, and the library's own Version() is empty (release 2.0.0).
package_version() {
  local name commit=""
  name=$(realpath -- "$MS_LITE_HOME")
  name=${name##*/}
  if [[ -f $MS_LITE_HOME/.commit_id ]]; then
    # false at a line without an end, which is read all the same; a commit that is not known is left out
    read -r _ commit _ <"$MS_LITE_HOME/.commit_id" || true
  fi
  if [[ $name =~ ^mindspore-lite-(.+)-linux-[^-]+$ ]]; then
    echo "${BASH_REMATCH[1]}${commit:+ (commit ${commit:0:12})}"
  else
    echo "unknown${commit:+ (commit ${commit:0:12})}"
  fi
}

# with_libraries COMMAND...: run what needs the package's libraries, where LD_LIBRARY_PATH names the folders that the
# vendor's samples put there. Not for Python: MindSpore's own libraries have the same names.
with_libraries() {
  local home=${MS_LITE_HOME:-} path
  if [[ -z $home ]]; then
    "$@"
    return
  fi
  path=$home/runtime/lib:$home/runtime/third_party/dnnl:$home/tools/converter/lib:$home/runtime/third_party/glog
  path+=:$home/runtime/third_party/libjpeg-turbo/lib:${ASCEND_HOME:-/usr/local/Ascend}/driver/lib64
  LD_LIBRARY_PATH=$path${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "$@"
}
