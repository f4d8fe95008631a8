"""A web server on this machine that serves videos as cameras and file servers do."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np


@contextmanager
def serve_videos(folder: Path) -> Iterator[str]:
    """Serve the files of a folder, and some streams, until the block ends.

    `/camera` sends 12 JPEG images and ends, `/stalls` sends 12 and then nothing more, and
    `/silent` sends nothing at all.

    Yields:
        The URL of the server.
    """
    end = threading.Event()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, directory=str(folder), **kwargs)

        def log_message(self, *_) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == '/silent':
                end.wait()
            elif self.path in ('/camera', '/stalls'):
                self._send_images()
                if self.path == '/stalls':
                    end.wait()
            else:
                super().do_GET()

        def _send_images(self) -> None:
            self.send_response(200)
            self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=image')
            self.end_headers()
            for number in range(12):
                image = np.full((48, 64, 3), (30, 30, 40 + 8 * number), np.uint8)
                data = cv2.imencode('.jpg', image)[1].tobytes()
                head = (
                    f'--image\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n'
                )
                self.wfile.write(head.encode() + data + b'\r\n')
                self.wfile.flush()
                if end.wait(0.02):
                    return

        def handle(self) -> None:
            with suppress(ConnectionError):  # the reader has what it wants
                super().handle()

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.server_port}'
    finally:
        end.set()
        server.shutdown()
        thread.join()
        server.server_close()
