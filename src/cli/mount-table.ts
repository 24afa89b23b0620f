/** What is mounted, as /proc says it: for `tsdlm mount` and `tsdlm umount`. */
import { readdirSync, readFileSync } from 'node:fs';

export interface MountEntry {
  dir: string;
  type: string;
  source: string;
  /** Options of the file system itself, such as aname. */
  options: string[];
}

/** `text` is a mountinfo file. */
export function parseMountInfo(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const [left, right] = line.split(' - ');
    const dir = left?.split(' ')[4];
    const [type, source, options] = right?.split(' ') ?? [];
    if (dir === undefined || type === undefined || source === undefined) continue;
    entries.push({ dir: plainPath(dir), type, source: plainPath(source), options: (options ?? '').split(',').map(plainPath) });
  }
  return entries;
}

/** Blanks and the like are octal there. */
function plainPath(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

/** What is mounted there now: the last of those that cover each other. */
export function mountedAt(dir: string, text = readFileSync('/proc/self/mountinfo', 'utf8')): MountEntry | null {
  return parseMountInfo(text).findLast((entry) => entry.dir === dir) ?? null;
}

/** The name that the mount gave at its attach, or null. */
export function anameOf(entry: MountEntry): string | null {
  const option = entry.options.find((o) => o.startsWith('aname='));
  return option === undefined ? null : option.slice('aname='.length);
}

/** The kernel can mount 9P now. */
export function kernelHas9p(filesystems = readFileSync('/proc/filesystems', 'utf8')): boolean {
  return filesystems.split('\n').some((line) => line.split('\t')[1] === '9p');
}

/** Process ids whose mount namespaces still have a mount of that name. */
export function othersWith(aname: string, proc = '/proc'): number[] {
  const pids: number[] = [];
  for (const name of readdirSync(proc)) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const entries = parseMountInfo(readFileSync(`${proc}/${name}/mountinfo`, 'utf8'));
      if (entries.some((e) => e.type === '9p' && anameOf(e) === aname)) pids.push(Number(name));
    } catch {
      // It has ended meanwhile.
    }
  }
  return pids;
}
