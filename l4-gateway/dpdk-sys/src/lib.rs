//! Raw FFI to the distribution's libdpdk, with a C shim for its inline functions.
//!
//! Only what `l4-gateway`'s `dpdk` module wraps is bound; nothing here is safe to call without reading DPDK's
//! documentation. The drivers (PMDs) are shared objects which EAL loads at run time from the directory that the
//! distribution compiled in, so they are not linked.

#![allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub
)]
#![allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    unsafe_op_in_unsafe_fn,
    unused_qualifications
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
