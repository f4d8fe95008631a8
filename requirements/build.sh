#!/bin/sh
# Build the messages into install/ with colcon, against .venv: requirements/build.sh
# Does nothing where what they are made from is as it was. The Python sources are linked into
# install/, so that an edit needs no build; a new file in config/, launch/ or models/ does.
set -eu
cd "$(dirname "$0")/.."
root=$(pwd)
stamp=install/built

# Built against these: other ones need a build from nothing, new messages do not.
against=$({ echo "$root"; .venv/bin/python --version; cat requirements/ros.txt \
  requirements/prepare_ros.py; } | cksum)
key="$against $({ cat msg/*.msg CMakeLists.txt package.xml; find config launch models -type f |
  LC_ALL=C sort; } | cksum)"
if [ "$(cat $stamp 2>/dev/null)" = "$key" ]; then
  exit 0
fi
if ! command -v c++ >/dev/null || ! command -v make >/dev/null; then
  echo "The messages need a C++ compiler and make: apt install g++ make" >&2
  exit 1
fi
echo "Building the messages"
case $(cat $stamp 2>/dev/null) in
  "$against "*) ;;
  *) rm -rf build install ;;
esac
rm -f $stamp
. .venv/local_setup.sh
export VIRTUAL_ENV="$root/.venv"
.venv/bin/python -m colcon --log-base build/log build --base-paths . --symlink-install \
  --event-handlers console_cohesion- status- \
  --cmake-args -DBUILD_TESTING=OFF "-DPython3_EXECUTABLE=$root/.venv/bin/python"
echo "$key" > $stamp
