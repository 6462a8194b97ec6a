"""The `dtk` command: plan a distributed run, explain it, start it or submit it. No torch in here."""
