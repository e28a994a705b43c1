"""The HTTP API: endpoints translate between HTTP and `app.operations`, and decide nothing themselves."""
