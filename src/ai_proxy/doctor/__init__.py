"""What `ai-proxy check` looks at: each file has its judgements, which are pure, and the probing beneath."""
