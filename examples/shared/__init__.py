"""What several examples share: data that need no network, and the options of training."""
