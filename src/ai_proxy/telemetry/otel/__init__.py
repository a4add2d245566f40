"""OpenTelemetry: export of traces, metrics and logs over OTLP.

`settings` and `traceparent` do not import the OpenTelemetry SDK; the other modules are imported only when
something is exported.
"""
