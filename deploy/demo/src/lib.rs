//! The demo: the whole chain in network namespaces, proven by k6 while nodes are killed.

#![forbid(unsafe_code)]

pub mod admin;
pub mod app;
pub mod certificates;
pub mod chain;
pub mod interrupt;
pub mod k6;
pub mod lab;
pub mod namespace;
pub mod process;
pub mod proof;
pub mod ready;
pub mod render;
pub mod router;
pub mod topology;
pub mod verdict;
