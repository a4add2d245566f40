"""OpenTelemetry: traces, metrics and logs, sent to a collector over OTLP.

`settings` and `traceparent` know nothing of the OpenTelemetry SDK; the other modules are imported only when
something is to be sent.
"""
