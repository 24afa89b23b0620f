/**
 * Fence devices and the methods of nodes, as GFS 6.0 and cluster.xml have them, as our fence methods and levels.
 *
 * There a node names devices with parameters (port = 5), here a method is complete in itself: so each pair of device and parameters
 * becomes a method. A password never goes into the configuration: `ipmi` reads it from a file, an agent from a script
 * (passwd_script); any other secret has to be put there by hand.
 */
import { type ImportedMethod, isSecretKey, type SecretFile, usableName } from './result.js';
import { type Entry, leave, shown, wrong } from './tree.js';

/** Levels of one node, methods of one level, and all methods. */
const LEVELS_MAX = 16;
const METHODS_MAX = 64;
const OPTION_NAME = /^[a-z][a-z0-9_-]{0,63}$/;
/** Set by tsdlmd with each request. */
const OURS = new Set(['action', 'option', 'nodename', 'plug']);

export interface FenceUse {
  device: Entry;
  /** Name of the device. */
  name: string;
  /** What the node says of it: port and so on. */
  parameters: Entry[];
}

export interface FenceDevice {
  entry: Entry;
  agent: string;
  parameters: Entry[];
}

export class FenceMethods {
  readonly methods: ImportedMethod[] = [];
  readonly secrets: SecretFile[] = [];
  readonly #devices: Map<string, FenceDevice>;
  readonly #secretsDir: string;
  readonly #names = new Set<string>(['self', 'manual']);
  readonly #made = new Map<string, string>();

  constructor(devices: Map<string, FenceDevice>, secretsDir: string) {
    this.#devices = devices;
    this.#secretsDir = secretsDir;
  }

  /** The levels of one node. Each inner list: the devices of one method there. */
  levels(node: string, uses: readonly FenceUse[][]): string[][] {
    const levels: string[][] = [];
    for (const use of uses) {
      const names = use.map((u) => this.#method(node, u));
      // A level of which a part cannot be carried over would be weaker than it was: it is left out as a whole.
      if (names.some((n) => n === null)) continue;
      if (names.length > 1 && names.includes('manual')) {
        for (const u of use) leave(u.device, 'by hand and by device in one method: "manual" stands alone in its level');
        for (const u of use) u.device.isTaken = false;
        continue;
      }
      if (names.length > 0) levels.push([...new Set(names as string[])]);
    }
    if (levels.length > LEVELS_MAX)
      throw wrong(
        uses[0]?.[0]?.device.file ?? '',
        uses[0]?.[0]?.device.line ?? 1,
        `node ${shown(node)} has more than ${LEVELS_MAX} fence methods`,
      );
    return levels;
  }

  #method(node: string, use: FenceUse): string | null {
    const device = this.#devices.get(use.name);
    if (!device)
      throw wrong(
        use.device.file,
        use.device.line,
        `node ${shown(node)} is fenced by ${shown(use.name)}, and there is no such device`,
      );
    if (device.agent === 'fence_manual') {
      for (const p of [...use.parameters, ...device.parameters]) p.isTaken = true;
      return 'manual';
    }
    if (!/^[A-Za-z0-9_.-]{1,64}$/.test(device.agent)) {
      throw wrong(
        device.entry.file,
        device.entry.line,
        `the agent of ${shown(use.name)} is ${shown(device.agent)}: the name of a fence agent is expected, such as "fence_apc"`,
      );
    }
    const key = JSON.stringify([
      use.name,
      use.parameters.map((p) => [p.key, p.text]).sort(),
      device.agent === 'fence_ipmilan' ? '' : node,
    ]);
    const before = this.#made.get(key);
    if (before !== undefined) {
      for (const p of use.parameters) if (!isSecretKey(p.key)) p.isTaken = true;
      return before;
    }
    const hasParameters = use.parameters.length > 0;
    const name = usableName(hasParameters ? `${use.name}-${node}` : use.name, this.#names, 'device');
    if (this.methods.length >= METHODS_MAX)
      throw wrong(device.entry.file, device.entry.line, `more than ${METHODS_MAX} fence methods would be needed`);
    const made = device.agent === 'fence_ipmilan' ? this.#ipmi(name, device, use) : this.#agent(name, device, use);
    if (made === null) return null;
    this.methods.push(made);
    this.#made.set(key, name);
    return name;
  }

  /** What the node says wins over what the device says. */
  #parameters(device: FenceDevice, use: FenceUse): Map<string, Entry> {
    const all = new Map<string, Entry>();
    for (const p of device.parameters) all.set(p.key, p);
    for (const p of use.parameters) all.set(p.key, p);
    return all;
  }

  #ipmi(name: string, device: FenceDevice, use: FenceUse): ImportedMethod | null {
    const p = this.#parameters(device, use);
    const take = (...keys: string[]): string | undefined => {
      for (const key of keys) {
        const found = p.get(key);
        if (!found || found.text === null) continue;
        found.isTaken = true;
        return found.text;
      }
      return undefined;
    };
    const host = take('ipaddr', 'ip');
    const user = take('login', 'username');
    if (host === undefined || user === undefined || !/^[^\s-]\S{0,254}$/.test(host) || !/^[^\s-]\S{0,63}$/.test(user)) {
      leave(device.entry, 'without a usable ipaddr and login there is no fence method of type "ipmi": write one by hand');
      for (const e of p.values()) {
        e.isTaken = false;
        e.why = 'the device has no usable ipaddr and login: write a fence method by hand';
      }
      return null;
    }
    const settings: ImportedMethod['settings'] = [
      ['host', host],
      ['user', user],
    ];
    const password = take('passwd', 'password');
    settings.push([
      'password_file',
      this.#secret(`${name}.password`, password ?? null, `the password of user ${user} at ${host}, on one line`),
    ]);
    const cipher = p.get('cipher');
    if (cipher?.text && /^[0-9]{1,3}$/.test(cipher.text) && Number(cipher.text) <= 255)
      settings.push(['cipher', Number(take('cipher'))]);
    const privilege = p.get('privlvl')?.text?.toUpperCase();
    if (privilege && ['USER', 'OPERATOR', 'ADMINISTRATOR'].includes(privilege)) {
      take('privlvl');
      settings.push(['privilege', privilege]);
    }
    const lanplus = p.get('lanplus');
    if (lanplus?.text && !/^(0|no|false|off)$/i.test(lanplus.text)) lanplus.isTaken = true;
    else if (lanplus) lanplus.why = 'tsdlm speaks lanplus (IPMI 2.0) only';
    return { name, type: 'ipmi', settings, options: [] };
  }

  #agent(name: string, device: FenceDevice, use: FenceUse): ImportedMethod {
    const settings: ImportedMethod['settings'] = [['program', `/usr/sbin/${device.agent}`]];
    const options: ImportedMethod['options'] = [];
    for (const [key, p] of this.#parameters(device, use)) {
      const { text } = p;
      if (text === null) continue;
      if (key === 'port') {
        p.isTaken = true;
        settings.push(['plug', text]);
      } else if (key === 'passwd' || key === 'password') {
        p.isTaken = true;
        const file = this.#secret(`${name}.password`, text, `the password for ${name}, on one line`);
        const script = this.#script(`${name}.password-script`, file);
        options.push(['passwd_script', script]);
      } else if (isSecretKey(key)) {
        p.why = `a secret: add it by hand under [fence.${name}.options], and let only root read that file`;
      } else if (OURS.has(key)) {
        p.why = 'tsdlmd sets it itself with each request: off, status, on';
      } else if (!OPTION_NAME.test(key) || /[\n\r]/.test(text) || text === '') {
        p.why = 'no option that an agent could be given';
      } else {
        p.isTaken = true;
        options.push([key, text]);
      }
    }
    return { name, type: 'agent', settings, options };
  }

  #secret(file: string, content: string | null, what: string): string {
    if (!this.secrets.some((s) => s.name === file)) {
      this.secrets.push({ name: file, mode: 0o600, content: content === null ? null : `${content}\n`, what });
    }
    return `${this.#secretsDir}/${file}`;
  }

  #script(file: string, passwordFile: string): string {
    const quoted = `'${passwordFile.replaceAll("'", "'\\''")}'`;
    this.secrets.push({
      name: file,
      mode: 0o700,
      content: `#!/bin/sh\nexec cat ${quoted}\n`,
      what: 'a script that prints that password',
    });
    return `${this.#secretsDir}/${file}`;
  }
}
