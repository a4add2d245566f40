"""The checks of `ai-proxy check`: pure functions classify facts, probes find them."""
