"""API keys, the policy, rate limits and the audit log: who may do what."""
