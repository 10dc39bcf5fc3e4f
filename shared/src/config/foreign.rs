//! Words of nginx, HAProxy and Envoy for what the L7 tier calls otherwise, or doesn't have: who comes from there writes them first. A hint is a
//! promise; whoever adds a feature looks here for a line that says there is none.

/// What to do about an unknown key that is known elsewhere.
pub(super) fn hint(key: &str) -> Option<&'static str> {
    let said = |(words, _): &&(&[&str], &str)| words.contains(&key);
    WORDS.iter().find(said).map(|(_, hint)| *hint)
}

const WORDS: &[(&[&str], &str)] = &[
    // Listeners.
    (&["listen", "bind"], "that is `address` of [[listeners]]"),
    (
        &["server", "servers", "frontend", "frontends"],
        "that is [[listeners]] and [[routes]]",
    ),
    (
        &["ssl", "tls"],
        "write `protocol = \"https\"` in [[listeners]]",
    ),
    (
        &["client_header_timeout", "timeout_http_request"],
        "that is `header_timeout` of [[listeners]]",
    ),
    (
        &["client_body_timeout"],
        "that is `body_timeout` of [[listeners]]",
    ),
    (
        &["timeout_client"],
        "that is `body_timeout` and `send_timeout` of [[listeners]]",
    ),
    (
        &["keepalive_timeout", "timeout_http_keep_alive"],
        "towards clients that is `idle_timeout` of [[listeners]], towards backends `keep_alive.idle_timeout` of [upstreams.NAME]",
    ),
    (
        &["large_client_header_buffers", "max_request_headers_kb"],
        "that is `max_header_size` of [[listeners]]",
    ),
    (
        &["worker_connections", "maxconn"],
        "that is `max_connections` of [[listeners]]",
    ),
    (
        &["http2_max_concurrent_streams", "max_concurrent_streams"],
        "that is `max_streams` of [[listeners]]",
    ),
    (
        &["worker_processes", "nbthread", "concurrency"],
        "that is `workers`",
    ),
    (
        &["set_real_ip_from", "real_ip_header"],
        "that is `forwarding.trusted`",
    ),
    // Certificates.
    (
        &["ssl_certificate", "crt"],
        "that is `certificate` of [[certificates]]",
    ),
    (
        &["ssl_certificate_key"],
        "that is `key` of [[certificates]]",
    ),
    (
        &["ssl_protocols", "ssl_ciphers"],
        "TLS 1.2 and 1.3 with the library's ciphers: there is no choice yet",
    ),
    // Routes.
    (&["server_name", "domains"], "that is `hosts` of [[routes]]"),
    (
        &[
            "location",
            "locations",
            "acl",
            "use_backend",
            "virtual_hosts",
        ],
        "that is `hosts` and `path` of [[routes]]",
    ),
    (
        &["default_backend"],
        "write a route without `hosts` and `path`",
    ),
    (
        &["proxy_pass", "cluster"],
        "that is `upstream` of [[routes]]",
    ),
    // Upstreams.
    (&["backend", "clusters"], "that is [upstreams.NAME]"),
    (
        &["lb_policy", "balance_policy"],
        "that is `balance` of [upstreams.NAME]",
    ),
    (
        &["proxy_connect_timeout", "timeout_connect"],
        "that is `connect_timeout` of [upstreams.NAME]",
    ),
    (
        &["proxy_read_timeout", "timeout_server"],
        "that is `response_timeout` of [upstreams.NAME]",
    ),
    (
        &[
            "proxy_next_upstream",
            "proxy_next_upstream_tries",
            "num_retries",
        ],
        "that is `retries` of [upstreams.NAME]",
    ),
    (
        &["keepalive"],
        "that is `keep_alive.idle` of [upstreams.NAME]",
    ),
    (
        &["health_check", "health_checks", "max_fails", "fail_timeout"],
        "that is [upstreams.NAME.health]",
    ),
    // What there isn't.
    (
        &["client_max_body_size", "max_body_size", "max_request_bytes"],
        "there is no limit on the size of a request body yet",
    ),
    (
        &["limit_req", "limit_conn", "rate_limit"],
        "there are no limits by client yet",
    ),
    (
        &["gzip", "brotli", "compression"],
        "responses are not compressed yet",
    ),
    (&["proxy_cache", "cache"], "there is no cache yet"),
    (
        &["return", "redirect", "rewrite"],
        "there are no redirects and rewrites yet",
    ),
    (
        &[
            "add_header",
            "proxy_set_header",
            "http_request",
            "http_response",
        ],
        "header fields can't be set yet, apart from those about the client ([forwarding])",
    ),
    (
        &["root", "alias", "index"],
        "there are no files to serve: a route leads to an upstream",
    ),
];
