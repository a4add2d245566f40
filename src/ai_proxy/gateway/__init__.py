"""The data plane: our own HTTP/1.1 server and client on uvloop and httptools."""
