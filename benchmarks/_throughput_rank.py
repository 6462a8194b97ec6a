"""One rank of one strategy of `dtk bench throughput`. It is here so that benchmarks/ is on the rank's sys.path."""

import sys

from throughput_parts.rank import main

if __name__ == "__main__":
    main(sys.argv[1:])
