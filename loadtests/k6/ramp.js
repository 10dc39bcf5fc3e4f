// Ramp: from START_RATE up to RATE in STEPS equal steps, each climbed in a tenth of STEP and held for the rest.
// Where the thresholds break shows how much the deployment carries.
//
//   k6 run -e BASE_URL=http://192.0.2.10 -e HOSTS=shop.example.net -e START_RATE=100 -e RATE=2000 -e STEPS=10 -e STEP=30 ramp.js

import { load, next, options as base } from './lib/target.js';

const start = load.number('START_RATE', 10);
const steps = load.number('STEPS', 5);
// Seconds a step takes.
const step = load.number('STEP', 20);

function stages() {
    const climb = Math.max(1, Math.round(step / 10));
    const all = [];
    for (let i = 1; i <= steps; i += 1) {
        const target = Math.round(start + ((load.rate - start) * i) / steps);
        all.push({ target, duration: `${climb}s` }, { target, duration: `${Math.max(1, step - climb)}s` });
    }
    return all;
}

export const options = base({
    name: 'ramp',
    settings: {
        executor: 'ramping-arrival-rate',
        startRate: start,
        timeUnit: '1s',
        preAllocatedVUs: load.vus,
        maxVUs: load.maxVus,
        stages: stages(),
    },
});

export default next;
