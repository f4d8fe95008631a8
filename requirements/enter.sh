# For a shell in the root of this checkout: . requirements/enter.sh
# ROS from .venv, the messages from install/, and before both the sources here. install/setup.sh of
# colcon does the same but for the last, and stumbles over a path with a space.
. .venv/local_setup.sh
_built="$PWD/install/videomt_ros"
export AMENT_PREFIX_PATH="$_built:$AMENT_PREFIX_PATH"
export LD_LIBRARY_PATH="$_built/lib:$LD_LIBRARY_PATH"
export PYTHONPATH="$PWD:$(echo "$_built"/lib/python3.*/site-packages)${PYTHONPATH:+:$PYTHONPATH}"
unset _built
# The command that pip installs, from the sources here.
videomt() { python -m videomt_ros "$@"; }
