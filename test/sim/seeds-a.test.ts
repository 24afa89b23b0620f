/** A quarter of the five thousand seeds that every run has: the files share the processors. */
import { testSeeds } from './seed-range.js';

testSeeds(1, 1250);
