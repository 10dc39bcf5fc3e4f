// Soak: a moderate rate for a long time (an hour unless DURATION says otherwise), with the rate swinging between
// RATE and half of it every PERIOD minutes, so that pools and tables grow, shrink and expire. The first minute
// must be as good as the last: thresholds hold over the whole run.
//
//   k6 run -e BASE_URL=https://192.0.2.10 -e HOSTS=shop.example.net -e RATE=200 -e DURATION=8h soak.js

import { load, next, options as base } from './lib/target.js';

const minutes = load.seconds('DURATION', 3600) / 60;
const period = load.number('PERIOD', 10);

function stages() {
    const all = [];
    for (let i = 0; i * period < minutes; i += 1) {
        const target = i % 2 === 0 ? load.rate : Math.max(1, Math.round(load.rate / 2));
        const left = Math.min(period, minutes - i * period);
        all.push({ target, duration: '5s' }, { target, duration: `${Math.max(1, Math.round(left * 60) - 5)}s` });
    }
    return all;
}

export const options = base({
    name: 'soak',
    settings: {
        executor: 'ramping-arrival-rate',
        startRate: load.rate,
        timeUnit: '1s',
        preAllocatedVUs: load.vus,
        maxVUs: load.maxVus,
        stages: stages(),
    },
});

export default next;
