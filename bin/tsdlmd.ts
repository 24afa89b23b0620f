#!/usr/bin/env node
/** The daemon's entry point: options, configuration, signals; everything else is src/node/daemon.ts. */
import { main } from '../src/node/main.js';

void main(process.argv);
