"""`python -m dtk_launch` is `dtk`."""

from dtk_launch.cli import main

if __name__ == "__main__":
    main()
