/** The first thousand seeds, the same in every run; the second thousand runs beside it on the other processor. */
import { testSeeds } from './seed-range.js';

testSeeds(1, 1000);
