"""What the gateway does to requests to models and their responses: reading, fitting, rewriting, metering."""
