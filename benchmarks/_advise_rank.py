"""One rank of `dtk bench advise`. It is here so that benchmarks/ is on the rank's sys.path until the script's is."""

import sys

from advise_parts.probe import main

if __name__ == "__main__":
    main(sys.argv[1:])
