//! Weir's L4 tier: DPDK forwarders (FULLNAT), the actors that steer them, and their command line.
