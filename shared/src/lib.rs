//! What every Weir tier shares: configuration, the state bus, record types, telemetry, the admin listener, drain and shutdown.
