"""Services run as child processes of the proxy."""
