"""`python -m dist_toolkit.checkpoint.tool` is `dtk ckpt`."""

import sys

from dist_toolkit.checkpoint.tool.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
