//! Heads of HTTP requests, the target first (with `0` or `2` before it for HTTP/1.0 or HTTP/2), then one field a line.

pub(super) fn seeds() -> Vec<Vec<u8>> {
    [
        "/\nhost: a",
        "0/",
        "2http://www.example.com/api/users?q=1\nte: trailers",
        "http://a:8080/x\nhost: b",
        "/api/users/../admin\nhost: a",
        "/%61pi//users/%2e%2e/%2E./admin;x\nhost: WWW.Example.COM.:80",
        "/a%2fb%5cc%00\nhost: a",
        "/\\..\\admin\nhost: [2001:db8::1]:443",
        "*\nhost: a",
        "/\nhost: a\nhost: b",
        "/\nhost: a\ncontent-length: 1\ncontent-length: 1, 1\ntransfer-encoding: chunked",
        "/\nhost: a\ntransfer-encoding: gzip, chunked\ntransfer-encoding: identity",
        "/\nhost: a\nconnection: close, x-secret, te\nx-secret: 1\nkeep-alive: 5\nupgrade: websocket",
        "/ws\nhost: a\nconnection: upgrade\nupgrade: websocket, h2c\nproxy-connection: x",
        "/\nhost: a\nx-forwarded-for: 1.2.3.4, evil\nx-real-ip: 1\nx-forwarded-proto: https\nforwarded: for=1",
    ]
    .map(|head| head.as_bytes().to_vec())
    .to_vec()
}

pub(super) fn words() -> Vec<String> {
    let names = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "forwarded",
    ];
    let others = [
        "chunked", "trailers", "close", "/../", "/./", "//", "%2e", "%2F", "%5c", "%00", "%25",
        "/api", "/admin", "users", "http://", "\n", ":",
    ];
    let fields = names.map(|name| format!("\n{name}: "));
    fields
        .into_iter()
        .chain(others.map(str::to_owned))
        .collect()
}

/// Responses as backends send them. The first byte is the chunk size in bytes; its bit 7 makes the request a HEAD.
pub(super) fn responses() -> Vec<Vec<u8>> {
    [
        "\x01HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX-A: b\r\n\r\nhelloHTTP/1.1 304 Not Modified\r\n\r\n",
        "\x07HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Fine by me\r\ntransfer-encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n",
        "\x03HTTP/1.0 404 Not Found\r\nconnection: keep-alive\r\n\r\nuntil the end",
        "\x02HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\x01\x02",
        "\x40HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        "\x11HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

pub(super) fn response_words() -> Vec<String> {
    [
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 204 No Content\r\n",
        "content-length: ",
        "transfer-encoding: chunked\r\n",
        "connection: close\r\n",
        "\r\n\r\n",
        "\r\n0\r\n\r\n",
        "1;\r\n",
    ]
    .map(str::to_owned)
    .to_vec()
}
