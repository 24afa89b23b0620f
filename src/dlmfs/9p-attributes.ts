/**
 * What 9P tells of a file: its identity, attributes and times.
 *
 * The problem: a lock file has a size, times and an owner only as far as programs look at them. The idea: they are made up from
 * the node of the tree whenever somebody asks, and only mode, owner and times can be set.
 */
import {
  type Body,
  GETATTR_BASIC,
  type Message,
  QID_DIR,
  QID_FILE,
  type Qid,
  SET_ATIME,
  SET_ATIME_TO,
  SET_GID,
  SET_MODE,
  SET_MTIME,
  SET_MTIME_TO,
  SET_UID,
} from './9p-messages.js';
import { type AnyNode, linksOf, modeOf, sizeOf } from './tree.js';
import { BLOCK_SIZE } from './types.js';

export function qidOf(node: AnyNode): Qid {
  return { type: node.kind === 'file' ? QID_FILE : QID_DIR, version: 0, path: node.ino };
}

export function attributesOf(node: AnyNode): Body<'Rgetattr'> {
  return {
    valid: GETATTR_BASIC,
    qid: qidOf(node),
    mode: modeOf(node),
    uid: node.uid,
    gid: node.gid,
    nlink: linksOf(node),
    rdev: 0,
    size: sizeOf(node),
    blksize: BLOCK_SIZE,
    blocks: 0,
    atimeSec: Math.floor(node.atimeMs / 1000),
    atimeNsec: nanoseconds(node.atimeMs),
    mtimeSec: Math.floor(node.mtimeMs / 1000),
    mtimeNsec: nanoseconds(node.mtimeMs),
    ctimeSec: Math.floor(node.ctimeMs / 1000),
    ctimeNsec: nanoseconds(node.ctimeMs),
    btimeSec: 0,
    btimeNsec: 0,
    gen: 0,
    dataVersion: 0,
  };
}

/** The size is not for setting: accepted, and nothing changes. `now`: ms. */
export function setAttributes(node: AnyNode, m: Message<'Tsetattr'>, now: number): void {
  if (m.valid & SET_MODE) node.mode = m.mode & 0o7777;
  if (m.valid & SET_UID) node.uid = m.uid;
  if (m.valid & SET_GID) node.gid = m.gid;
  if (m.valid & SET_ATIME) node.atimeMs = m.valid & SET_ATIME_TO ? m.atimeSec * 1000 + Math.floor(m.atimeNsec / 1e6) : now;
  if (m.valid & SET_MTIME) node.mtimeMs = m.valid & SET_MTIME_TO ? m.mtimeSec * 1000 + Math.floor(m.mtimeNsec / 1e6) : now;
  if (m.valid & (SET_MODE | SET_UID | SET_GID)) node.ctimeMs = now;
}

/** What is left of a time in milliseconds behind its whole seconds. */
function nanoseconds(ms: number): number {
  return Math.round((ms - Math.floor(ms / 1000) * 1000) * 1e6);
}
