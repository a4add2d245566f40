"""HTTP/1.1 on the wire: both sides' connections, heads, framing and limits; knows nothing of models."""
