"""A run, put together: settings, network, callbacks, studies."""
