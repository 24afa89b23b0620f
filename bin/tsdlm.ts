#!/usr/bin/env node
/** The command line's entry point; everything is in src/cli. */
import { main } from '../src/cli/main.js';

process.exitCode = await main(process.argv);
