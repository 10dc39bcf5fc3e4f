//! Client connections, from the listening socket to HTTP: accept, the PROXY header, TLS, the guard in front of the HTTP/1 parser.
//!
//! | what | file |
//! |---|---|
//! | listening sockets, accept loops | `accept/` |
//! | what is over the limit | `refusal.rs` |
//! | whose connection it is: PROXY | `origin.rs`, `proxy_protocol/` |
//! | TLS, HTTP/1 or 2, drains | `connection.rs`, `tls/` |
//! | HTTP/1 and the pauses between requests | `conversation.rs`, `aside.rs` |
//! | the bytes of HTTP/1: framing that means one thing only | `strict.rs` |

pub mod accept;
mod aside;
mod connection;
mod conversation;
mod origin;
pub mod proxy_protocol;
mod refusal;
mod strict;
pub mod tls;

pub(crate) use origin::instead_of_headers;
