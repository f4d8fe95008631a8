"""Online video segmentation with track ids for ROS 2.

The folder is joined with the generated message modules (`videomt_ros.msg`), so that a source
checkout and an installed package see the same names.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
