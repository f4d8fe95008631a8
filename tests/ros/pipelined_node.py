"""The node as it runs on a GPU, on a CPU: with a pipeline, and the tensor code of a GPU."""

from __future__ import annotations

from videomt_ros.inference import postprocess
from videomt_ros.ros import cameras
from videomt_ros.ros.__main__ import run
from videomt_ros.ros.ending import end_process

if __name__ == '__main__':
    postprocess.is_on_host = lambda tensor: False  # type: ignore[assignment]
    cameras.gains_from_pipeline = lambda net: True  # type: ignore[assignment]
    start = cameras.Cameras._start

    def told(self, batch):
        """Say when images begin before the results of others are complete."""
        if self._pending is not None:
            print('OVERLAP', flush=True)
        return start(self, batch)

    cameras.Cameras._start = told  # type: ignore[method-assign]
    end_process(run())
