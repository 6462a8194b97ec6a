"""Other libraries' training loops with this package's checkpoints. Each module imports its library when it is used."""
