"""The imperative shell: supervisors, the scheduler, recovery and reload."""
