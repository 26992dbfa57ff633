"""Virtual keys: what may be asked for, the limits that hold, and who gets them."""
