// What is under test and how hard, from environment variables (loadtests/README.md lists them all), and the one
// request function every scenario uses. Each request is checked for its status, its body and the node that
// served it, timed from before the connection is made until the body is there, and recorded once in the
// metric weir_request with the tags ok, reason, scheme, host, path, node and those TAGS asks for.

import http from 'k6/http';
import exec from 'k6/execution';
import { check } from 'k6';
import { Rate, Trend } from 'k6/metrics';

const requestTime = new Trend('weir_request', true);
const failed = new Rate('weir_failed');

function text(name, fallback) {
    const value = __ENV[name];
    return value === undefined || value === '' ? fallback : value;
}

function number(name, fallback) {
    const value = text(name, undefined);
    if (value === undefined) {
        return fallback;
    }
    const parsed = Number(value);
    if (Number.isNaN(parsed)) {
        throw new Error(`${name} must be a number, got "${value}"`);
    }
    return parsed;
}

function list(name, fallback) {
    const value = text(name, undefined);
    return value === undefined ? fallback : value.split(',').map((item) => item.trim()).filter((item) => item);
}

// "https://10.0.0.100:8443" -> { scheme, address, port }; the port is '' where the scheme's own is meant.
function parseBase(url) {
    const match = /^(https?):\/\/(\[[0-9a-fA-F:.]+\]|[^/:]+)(:\d+)?\/?$/.exec(url);
    if (!match) {
        throw new Error(`BASE_URL: expected http(s)://address[:port], got "${url}"`);
    }
    return { scheme: match[1], address: match[2], port: match[3] || '' };
}

function isLiteral(address) {
    return address.startsWith('[') || /^\d+\.\d+\.\d+\.\d+$/.test(address);
}

function readRoutes(bases) {
    const file = text('ROUTES_FILE', undefined);
    const inline = text('ROUTES', undefined);
    if (file !== undefined || inline !== undefined) {
        const routes = JSON.parse(inline !== undefined ? inline : open(file));
        if (!Array.isArray(routes) || routes.length === 0) {
            throw new Error('ROUTES must be a JSON array with at least one {"host", "path"}');
        }
        for (const route of routes) {
            if (!route.host || !route.path || !route.path.startsWith('/')) {
                throw new Error(`ROUTES: every entry needs a host and a path from "/": ${JSON.stringify(route)}`);
            }
        }
        return routes;
    }
    const hosts = list('HOSTS', [bases[0].address]);
    const paths = list('PATHS', ['/']);
    return hosts.flatMap((host) => paths.map((path) => ({ host, path })));
}

const bases = list('BASE_URL', ['http://127.0.0.1:8080']).map(parseBase);
const routes = readRoutes(bases);
const nodes = list('NODES', []);
const nodeField = text('NODE_FIELD', 'app');
// "via=peer,l4=headers.x-real-ip": more fields of the JSON body to record as tags.
const extraTags = list('TAGS', []).map((pair) => pair.split('='));
const timeout = text('TIMEOUT', '5s');
// Every FRESH-th request of a virtual user closes its connection, so that the next one opens a new one.
const fresh = number('FRESH', 0);

// Connections go to the address in BASE_URL whatever the host: Host header, SNI and certificate check stay right.
function hostMap() {
    const hosts = {};
    const literal = bases.find((base) => isLiteral(base.address));
    for (const route of routes) {
        if (bases.every((base) => base.address === route.host)) {
            continue;
        }
        if (!literal) {
            throw new Error(`BASE_URL must hold an IP address when HOSTS or ROUTES name other hosts (${route.host})`);
        }
        if (bases.some((base) => base.address !== literal.address)) {
            throw new Error('every BASE_URL must hold the same IP address: k6 maps a host to one address');
        }
        hosts[route.host] = literal.address;
    }
    return hosts;
}

function thresholds() {
    if (text('THRESHOLDS', 'on') === 'off') {
        return {};
    }
    return {
        weir_failed: [`rate<=${number('MAX_FAILED', 0)}`],
        weir_request: [`p(95)<${number('P95_MS', 200)}`, `p(99)<${number('P99_MS', 500)}`],
        dropped_iterations: ['count==0'],
    };
}

// The options every script starts from.
export function options(scenario) {
    return {
        scenarios: { [scenario.name]: scenario.settings },
        thresholds: thresholds(),
        hosts: hostMap(),
        insecureSkipTLSVerify: text('INSECURE', '0') === '1',
        userAgent: 'weir-k6',
        summaryTrendStats: ['min', 'med', 'p(95)', 'p(99)', 'max', 'count'],
        systemTags: ['status', 'error_code', 'scenario', 'proto'],
    };
}

// Settings of an arrival rate that does not slow down when the target does; all virtual users are there from
// the start, so that creating one never delays a request.
export const load = {
    rate: number('RATE', 50),
    duration: text('DURATION', '30s'),
    vus: number('VUS', 50),
    maxVus: number('MAX_VUS', number('VUS', 50)),
    text,
    number,
};

// How many different requests there are: every route over every base URL.
export const combinations = bases.length * routes.length;

// What one client asks: the routes of one host over one base URL, with connections of its own.
const clients = [...new Set(routes.map((route) => route.host))].flatMap((host) =>
    bases.map((base) => ({ base, routes: routes.filter((route) => route.host === host) })));

function parse(body) {
    try {
        return JSON.parse(body);
    } catch (_) {
        return undefined;
    }
}

// The value at a dotted path, as text; '' when there is none.
function at(seen, path) {
    const value = path.split('.').reduce((inner, key) => (inner ? inner[key] : undefined), seen);
    return value === undefined || value === null ? '' : String(value);
}

// What is wrong with a response; '' when it is as it must be.
function fault(route, response, seen) {
    if (response.error_code) {
        return `error ${response.error_code}`;
    }
    if (response.status !== (route.status || 200)) {
        return `status ${response.status}`;
    }
    if (route.contains !== undefined && !(response.body || '').includes(route.contains)) {
        return 'body';
    }
    for (const [field, value] of Object.entries(route.expect || {})) {
        if (at(seen, field) !== String(value)) {
            return `body ${field}`;
        }
    }
    if (nodes.length > 0 && !nodes.includes(at(seen, nodeField))) {
        return 'node';
    }
    return '';
}

// Sends one request; with `close`, its connection ends with it.
function send(base, route, close) {
    const url = `${base.scheme}://${route.host}${base.port}${route.path}`;
    const headers = Object.assign({}, route.headers);
    if (close) {
        headers.Connection = 'close';
    }
    const begin = Date.now();
    const response = http.request(route.method || 'GET', url, route.body || null, {
        headers,
        timeout,
        redirects: 0,
        responseType: 'text',
        // One time series for each route, however many queries it is asked with.
        tags: { name: `${base.scheme}://${route.host}${route.path.split('?')[0]}` },
    });
    const elapsed = Date.now() - begin;
    const seen = parse(response.body);
    const reason = fault(route, response, seen);
    const ok = reason === '';
    const tags = {
        ok: ok ? '1' : '0',
        reason,
        scheme: base.scheme,
        host: route.host,
        path: route.path.split('?')[0],
        node: at(seen, nodeField),
    };
    for (const [name, path] of extraTags) {
        tags[name] = at(seen, path);
    }
    requestTime.add(elapsed, tags);
    failed.add(!ok);
    check(response, { 'status, body and serving node are right': () => ok });
    return ok;
}

// Every combination in turn, for one virtual user.
export function sweep() {
    const n = exec.scenario.iterationInTest;
    send(bases[n % bases.length], routes[Math.floor(n / bases.length) % routes.length], false);
}

// The next request of a client: each virtual user is one client of one host, and keeps its connection between
// requests as browsers and pools do.
export function next() {
    const client = clients[(exec.vu.idInTest - 1) % clients.length];
    const n = exec.vu.iterationInInstance;
    send(client.base, client.routes[n % client.routes.length], fresh > 0 && n % fresh === fresh - 1);
}
