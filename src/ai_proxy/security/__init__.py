"""Who may do what: API keys, the policy, limits, and the log of what was done and refused."""
