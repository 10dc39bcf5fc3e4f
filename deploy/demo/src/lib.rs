//! The demo: the whole chain in network namespaces, proven by k6 while nodes are killed.
