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

// Every variable there is: loadtests/README.md says what each means.
const VARIABLES = [
    'BASE_URL', 'HOSTS', 'PATHS', 'ROUTES', 'ROUTES_FILE', 'TIMEOUT', 'FRESH', 'INSECURE', 'NODES', 'NODE_FIELD', 'TAGS',
    'RATE', 'DURATION', 'VUS', 'MAX_VUS', 'ROUNDS', 'START_RATE', 'STEPS', 'STEP', 'PERIOD',
    'THRESHOLDS', 'MAX_FAILED', 'P95_MS', 'P99_MS',
];

// Of every system, or once ours.
const OTHERS = { PATH: '', HOST: '', HOURS: 'DURATION=8h' };

// Variables a script has asked for.
const asked = new Set();

// How many letters have to be changed, added, removed or swapped with their neighbour.
function distance(a, b) {
    const rows = [...Array(a.length + 1).keys()].map((i) => [i]);
    for (let j = 1; j <= b.length; j += 1) {
        rows[0][j] = j;
    }
    for (let i = 1; i <= a.length; i += 1) {
        for (let j = 1; j <= b.length; j += 1) {
            const differs = a[i - 1] === b[j - 1] ? 0 : 1;
            rows[i][j] = Math.min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + differs);
            if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
                rows[i][j] = Math.min(rows[i][j], rows[i - 2][j - 2] + 1);
            }
        }
    }
    return rows[a.length][b.length];
}

// A mistyped variable would otherwise be a run with the default, and nobody would know. Others of the environment are none of our business, so
// only what looks like one of ours is refused.
function refuseMistyped() {
    for (const name of Object.keys(__ENV)) {
        if (VARIABLES.includes(name) || OTHERS[name] === '') {
            continue;
        }
        const near = VARIABLES.find((known) => {
            const most = known.length > 4 ? 2 : 1;
            return Math.abs(name.length - known.length) <= most && distance(name.toUpperCase(), known) <= most;
        });
        const instead = OTHERS[name] || near;
        if (instead) {
            throw new Error(`unknown variable ${name}: did you mean ${instead}? (k6 run --include-system-env-vars=false looks at -e alone)`);
        }
    }
}

// Says once what this script has no use for. k6 runs this code once for itself and once for each virtual user.
function sayUnused() {
    const unused = VARIABLES.filter((name) => __ENV[name] && !asked.has(name));
    if (__VU === 0 && unused.length > 0) {
        console.warn(`no effect in this script: ${unused.join(', ')}`);
    }
}

// For k6 itself, and not again for each virtual user: hundreds of them would take half a minute to start.
if (__VU === 0) {
    refuseMistyped();
}

function text(name, fallback) {
    if (!VARIABLES.includes(name)) {
        throw new Error(`${name} is not in VARIABLES`);
    }
    asked.add(name);
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

// "90s", "5m", "1h30m": in seconds.
function seconds(name, fallback) {
    const value = text(name, undefined);
    if (value === undefined) {
        return fallback;
    }
    const match = /^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$/.exec(value);
    if (!match || value === '') {
        throw new Error(`${name} must be a duration such as "90s", "5m" or "1h30m", got "${value}"`);
    }
    const [hours, minutes, rest] = match.slice(1).map((part) => Number(part || 0));
    return hours * 3600 + minutes * 60 + rest;
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
    const all = {
        scenarios: { [scenario.name]: scenario.settings },
        thresholds: thresholds(),
        hosts: hostMap(),
        insecureSkipTLSVerify: text('INSECURE', '0') === '1',
        userAgent: 'weir-k6',
        summaryTrendStats: ['min', 'med', 'p(95)', 'p(99)', 'max', 'count'],
        systemTags: ['status', 'error_code', 'scenario', 'proto'],
    };
    sayUnused();
    return all;
}

// Settings of an arrival rate that does not slow down when the target does; all virtual users are there from
// the start, so that creating one never delays a request.
export const load = {
    get rate() {
        return number('RATE', 50);
    },
    get duration() {
        return text('DURATION', '30s');
    },
    get vus() {
        return number('VUS', 50);
    },
    get maxVus() {
        return number('MAX_VUS', number('VUS', 50));
    },
    text,
    number,
    seconds,
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
    // Codes from 1400 to 1599 say no more than that the status is a 4xx or 5xx, which may be what is wanted.
    const answered = response.status >= 100 && response.error_code >= 1400 && response.error_code < 1600;
    if (response.error_code && !answered) {
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

// Milliseconds from before the connection was made until the body was there. k6's own times are exact to the microsecond (`blocked` is until there is
// a connection, the making of it included); where a request failed they may be missing, and the clock says it to the millisecond.
function took(response, elapsed) {
    const { blocked, duration } = response.timings;
    return blocked + duration >= elapsed - 1 ? blocked + duration : elapsed;
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
    const elapsed = took(response, Date.now() - begin);
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
