"""How clients speak to models: OpenAI's API, Anthropic's, Ollama's; and how they are translated. Pure."""
