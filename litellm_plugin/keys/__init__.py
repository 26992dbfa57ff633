"""Virtual keys: requests, limits, creation and undelivered keys."""
