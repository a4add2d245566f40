"""The APIs that clients speak (OpenAI, Anthropic, Ollama) and their translation; pure functions of bytes."""
