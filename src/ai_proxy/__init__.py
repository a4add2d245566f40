"""ai-proxy: one HTTP endpoint in front of every inference backend."""
