"""A child process of a replica: it runs one attempt of a job that may be poison (decision 0014)."""
