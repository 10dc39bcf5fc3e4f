//! What nobody should send: garbage, and floods, through the ports of the real binary, while connections of real kernels go on.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod floods;
#[path = "../../dataplane/tests/forwarding/frame.rs"]
#[allow(dead_code, unreachable_pub)] // the data plane's tests use the rest
mod frame;
mod garbage;
#[path = "../lab/mod.rs"]
mod lab;
mod talk;
