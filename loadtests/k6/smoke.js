// Smoke: every route over every base URL, one after the other, ROUNDS times. Any wrong answer fails the run.
//
//   k6 run -e BASE_URL=http://192.0.2.10,https://192.0.2.10 -e HOSTS=shop.example.net -e PATHS=/,/cart smoke.js

import { combinations, load, options as base, sweep } from './lib/target.js';

export const options = base({
    name: 'smoke',
    settings: {
        executor: 'shared-iterations',
        vus: 1,
        iterations: combinations * load.number('ROUNDS', 2),
        maxDuration: load.text('DURATION', '5m'),
    },
});

export default sweep;
