"""The database of this service: audit events, grants, leavers, notices, usage, runs of jobs."""
