"""Start the node: `python -m videomt_ros.ros`.

The imports of the node take seconds, in which a signal would end the process with a traceback.
This module imports nothing slow before it has handlers.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


def _leave(number: int, frame: FrameType | None) -> None:
    del number, frame
    os._exit(0)  # nothing has been opened yet


def run() -> int:
    """Run the node; see `videomt_ros.ros.main`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    from videomt_ros.ros.main import main

    return main()


if __name__ == '__main__':
    exit_code = run()
    from videomt_ros.ros.ending import end_process

    end_process(exit_code)
