/** The second thousand seeds, and a few that nobody has seen before: their numbers are in the title. */
import { testSeeds } from './seed-range.js';

testSeeds(1001, 1000);
testSeeds(Math.floor(Date.now() / 1000) * 100, 25);
