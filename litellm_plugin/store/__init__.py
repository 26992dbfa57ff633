"""The database of this service: audit events, grants, leavers, notices, runs of jobs."""
