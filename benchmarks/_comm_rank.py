"""One rank of `dtk bench comm`. It is here so that benchmarks/ is on the rank's sys.path."""

import sys

from comm_parts.rank import main

if __name__ == "__main__":
    main(sys.argv[1:])
