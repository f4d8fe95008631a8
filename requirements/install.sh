#!/bin/sh
# Make .venv from the requirement files: requirements/install.sh [interpreter]
# Does nothing where .venv is complete and the files here are as they were; repairs it otherwise.
set -eu
cd "$(dirname "$0")/.."
root=$(pwd)
wanted=${1:-}
venv=.venv/bin/python
stamp=.venv/installed

# A Python of 3.10-3.13 that really runs (a shim may only say that it does not), can make virtual
# environments and has its C headers, which compiling the messages needs.
usable() {
  "$1" -c '
import ensurepip, os, sys, sysconfig, venv
header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
sys.exit(not ((3, 10) <= sys.version_info[:2] <= (3, 13) and os.path.isfile(header)))
' >/dev/null 2>&1
}

version() {
  "$1" -c 'import sys; print(sys.version_info[:3])' 2>/dev/null || true
}

if [ -n "$wanted" ] && ! usable "$wanted"; then
  echo "$wanted is not a Python of 3.10-3.13 with venv and C headers. On Debian or Ubuntu:" \
    "apt install python3-venv python3-dev, or name another with PYTHON=." >&2
  exit 1
fi

key=$({ echo "$root"; cat requirements/*.txt requirements/prepare_ros.py; } | cksum)
if [ -x $venv ] && [ "$(cat $stamp 2>/dev/null)" = "$key" ] && [ -n "$(version $venv)" ] &&
  { [ -z "$wanted" ] || [ "$(version "$wanted")" = "$(version $venv)" ]; }; then
  exit 0
fi
rm -f $stamp

# An environment of another Python, of another folder or that does not start is made anew.
if [ -e .venv ] && ! { [ -x $venv ] && $venv -m pip --version >/dev/null 2>&1 &&
  grep -qF "$root/.venv" .venv/bin/activate &&
  { [ -z "$wanted" ] || [ "$(version "$wanted")" = "$(version $venv)" ]; }; }; then
  echo "Removing the unusable .venv"
  rm -rf .venv
fi
if [ ! -e .venv ]; then
  python=$wanted
  for candidate in python3.12 python3.11 python3.10 python3.13 python3; do
    if [ -z "$python" ] && usable $candidate; then python=$candidate; fi
  done
  if [ -z "$python" ]; then
    echo "Found no Python of 3.10-3.13 with venv and C headers. On Debian or Ubuntu:" \
      "apt install python3-venv python3-dev, or name one with PYTHON=." >&2
    exit 1
  fi
  echo "Making .venv with $python ($("$python" --version))"
  "$python" -m venv .venv
fi

install() {
  $venv -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt "$@"
}
# The pinned pip first: older ones know no constraints for what an sdist needs to build.
echo "[1/4] pip";                                 install pip setuptools
echo "[2/4] PyTorch and the models (2-3 GB to download, minutes)"
install -r requirements/base.txt -r requirements/train.txt -r requirements/eval.txt \
  -r requirements/export.txt
echo "[3/4] ROS 2 Jazzy and its build tools"
install --build-constraint requirements/constraints.txt -r requirements/ros.txt
echo "[4/4] Test tools";                          install -r requirements/test.txt
$venv requirements/prepare_ros.py
echo "$key" > $stamp
