"""The read-through cache and its invalidation; locks, and counters of rate limits."""
