// Steady: RATE requests a second for DURATION, whether the answers keep up or not.
//
//   k6 run -e BASE_URL=https://192.0.2.10 -e HOSTS=shop.example.net -e RATE=500 -e DURATION=2m -e VUS=200 steady.js

import { load, next, options as base } from './lib/target.js';

export const options = base({
    name: 'steady',
    settings: {
        executor: 'constant-arrival-rate',
        rate: load.rate,
        timeUnit: '1s',
        duration: load.duration,
        preAllocatedVUs: load.vus,
        maxVUs: load.maxVus,
    },
});

export default next;
