"""Events that the demo's camera and recorder print for the process that started them.

One line of JSON each on stdout, so that logs on stderr don't mix with them. They tell what
happened; images and results go over DDS alone.
"""

from __future__ import annotations

import json
from typing import Any


def emit(event: str, **values: Any) -> None:
    """Print an event."""
    print(json.dumps({'event': event, **values}), flush=True)
