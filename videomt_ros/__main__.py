"""`python -m videomt_ros <verb>`, the same as the console command `videomt`."""

import sys

from videomt_ros.cli import main

if __name__ == '__main__':
    sys.exit(main())
