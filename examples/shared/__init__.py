"""What several examples share: data that every machine has, and the options of good practice."""
