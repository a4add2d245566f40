"""How clients speak to models: OpenAI's API, Anthropic's, Ollama's; and the translation between them. Pure."""
