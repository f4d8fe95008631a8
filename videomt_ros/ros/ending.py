"""The end of a process that has used rclpy."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

from rclpy.utilities import get_default_context


def end_process(exit_code: int) -> NoReturn:
    """End this process at once, after its main function has closed everything.

    The interpreter's own end would take seconds to unload torch, and a launch file kills the
    process after five; it can also wait for threads of the middleware. But it is what deletes the
    participant of the middleware. A participant that is not deleted stays listed for 20 s by its
    peers, as one that was killed, and leaves its shared memory behind.

    Args:
        exit_code: exit code of the process.
    """
    gc.collect()  # nodes are in cycles of references, and keep the context in use
    get_default_context(shutting_down=True).destroy()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
