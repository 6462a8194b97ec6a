"""`python -m dtk_launch` is `dtk`."""

from dtk_launch.entry import main

if __name__ == "__main__":
    main()
