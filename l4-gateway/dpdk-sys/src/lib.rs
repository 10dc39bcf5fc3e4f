//! Raw FFI to the distribution's libdpdk, with a C shim for its inline functions.
