"""`python -m dist_toolkit.checkpoint.tool` is `dtk ckpt`."""

import sys

try:
    from dist_toolkit.checkpoint.tool.app import main
except KeyboardInterrupt:  # Ctrl-C before there is anything to end
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
