//! The configurations: the same work for each of the three.
//!
//! One worker; a log line with the same fields for each request, into a file; `X-Forwarded-For`, `-Proto`, `-Host` and `X-Real-IP` set, `Host` as the
//! client sent it, no `Via`; connections to the application kept; bodies streamed, not collected; tickets on; and no limit that a row could run into.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use crate::certificates::Certificate;
use crate::load::path;

/// Connections kept to the application, more than any row has at once.
const KEPT: u32 = 256;
/// Open files are limited; HAProxy reserves two for each connection it may get, and is told to do with what there is.
const CONNECTIONS: u32 = 12_000;

/// What a proxy is told.
pub(crate) struct Told<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) log: &'a Path,
    pub(crate) application: SocketAddr,
    /// HTTP/1.1, HTTP/2 without TLS, and TLS with both.
    pub(crate) plain: SocketAddr,
    pub(crate) h2c: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) certificate: &'a Certificate,
    /// Prefixes with a route of their own, none for one route alone.
    pub(crate) routes: usize,
    /// nginx: without a process that only watches over the other.
    pub(crate) alone: bool,
}

/// The path of a route by its number.
pub(crate) fn route(number: usize) -> String {
    format!("{}{number}/", path::ROUTE)
}

pub(crate) fn weir(told: &Told<'_>) -> String {
    let mut text = format!(
        r#"workers = 1
[node]
id = "bench"
[admin]
listen = "{admin}"
[bus]
transport = "local"
[log]
level = "warn"
[access_log]
path = "{log}"
format = "json"
[drain]
grace = "0s"
deadline = "0s"
[forwarding]
via = "off"
[[listeners]]
name = "plain"
address = "{plain}"
max_connections = 100000
[[listeners]]
name = "h2c"
address = "{h2c}"
http2 = true
max_connections = 100000
[[listeners]]
name = "tls"
address = "{tls}"
protocol = "https"
max_connections = 100000
[[certificates]]
certificate = "{certificate}"
key = "{key}"
[upstreams.app]
backends = [{{ address = "{application}" }}]
keep_alive = {{ idle = {KEPT} }}
[[routes]]
name = "all"
upstream = "app"
"#,
        admin = told.admin,
        log = told.log.display(),
        plain = told.plain,
        h2c = told.h2c,
        tls = told.tls,
        certificate = told.certificate.certificate.display(),
        key = told.certificate.key.display(),
        application = told.application,
    );
    for number in 0..told.routes {
        let prefix = route(number);
        let _ = write!(
            text,
            "[[routes]]\nname = \"route-{number}\"\npath = {{ prefix = \"{prefix}\" }}\nupstream = \"app\"\n"
        );
    }
    text
}

pub(crate) fn nginx(told: &Told<'_>) -> String {
    let directory = told.directory.display();
    let mut routes = String::new();
    for number in 0..told.routes {
        let prefix = route(number);
        let _ = writeln!(
            routes,
            "    location {prefix} {{ proxy_pass http://app; set $route route-{number}; }}"
        );
    }
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {directory}/nginx-{kind};\n"))
        .concat();
    let master = if told.alone {
        "master_process off;\n"
    } else {
        ""
    };
    format!(
        r#"{master}daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/nginx-errors.log warn;
events {{ worker_connections {CONNECTIONS}; }}
http {{
{temporary}  log_format all escape=json '{{"time":"$time_iso8601","client":"$remote_addr","listener":"$server_port","scheme":"$scheme","method":"$request_method","host":"$http_host","target":"$request_uri","version":"$server_protocol","status":$status,"bytes_received":$request_length,"bytes_sent":$body_bytes_sent,"duration":$request_time,"upstream_duration":$upstream_header_time,"route":"$route","upstream":"$proxy_host","backend":"$upstream_addr","referer":"$http_referer","user_agent":"$http_user_agent"}}';
  access_log {log} all buffer=64k flush=100ms;
  keepalive_timeout 75s;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  proxy_request_buffering off;
  proxy_max_temp_file_size 0;
  proxy_http_version 1.1;
  proxy_set_header Host $http_host;
  proxy_set_header Connection "";
  proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Forwarded-Host $http_host;
  proxy_set_header X-Real-IP $remote_addr;
  ssl_certificate {certificate};
  ssl_certificate_key {key};
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_session_tickets on;
  upstream app {{ server {application}; keepalive {KEPT}; keepalive_requests 1000000000; }}
  server {{
    listen {plain};
    listen {h2c} http2;
    listen {tls} ssl http2;
    server_name _;
    set $route all;
    location / {{ proxy_pass http://app; }}
    location {tunnel} {{
      proxy_pass http://app;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
    }}
    location = /nginx-status {{ stub_status; }}
{routes}  }}
}}
"#,
        log = told.log.display(),
        certificate = told.certificate.certificate.display(),
        key = told.certificate.key.display(),
        application = told.application,
        plain = told.plain,
        h2c = told.h2c,
        tls = told.tls,
        tunnel = path::TUNNEL,
    )
}

/// With what `map` is to hold.
pub(crate) fn haproxy(told: &Told<'_>) -> (String, String) {
    let map: String = (0..told.routes)
        .map(|number| format!("{} app\n", route(number)))
        .collect();
    let chosen = if told.routes > 0 {
        let map = told.directory.join("haproxy.map");
        format!(
            "  use_backend %[path,map_beg({},app)]\n  default_backend app",
            map.display()
        )
    } else {
        "  default_backend app".into()
    };
    let text = format!(
        r#"global
  nbthread 1
  maxconn {CONNECTIONS}
  no strict-limits
  log stdout format raw local0 info
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode http
  log global
  option dontlognull
  timeout connect 1s
  timeout client 75s
  timeout server 60s
  timeout http-request 10s
  timeout http-keep-alive 75s
  timeout tunnel 1h
  http-reuse always
frontend web
  bind {plain}
  bind {h2c} proto h2
  bind {tls} ssl crt {both} alpn h2,http/1.1
  capture request header Host len 64
  capture request header User-Agent len 128
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Real-IP %[src]
  log-format '{{"time":"%Tl","client":"%ci","listener":"%fp","scheme":"%[ssl_fc,iif(https,http)]","method":"%HM","host":"%[capture.req.hdr(0)]","target":"%HU","version":"%HV","status":%ST,"bytes_received":%U,"bytes_sent":%B,"duration":%Ta,"upstream_duration":%Tr,"route":"%ft","upstream":"%b","backend":"%si:%sp","tries":%rc,"user_agent":"%[capture.req.hdr(1)]"}}'
{chosen}
backend app
  server app {application} pool-max-conn {KEPT}
"#,
        plain = told.plain,
        h2c = told.h2c,
        tls = told.tls,
        both = told.certificate.both.display(),
        application = told.application,
    );
    (text, map)
}
