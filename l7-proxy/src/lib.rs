//! Weir's L7 tier: a hyper and rustls reverse proxy.
