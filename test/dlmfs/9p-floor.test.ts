/** The 9P server without locks that figures are compared with (bench/floor-ninep.ts): it must be one that a kernel can use. */
import t from 'tap';
import { bareFiles } from '../../bench/floor-ninep.js';
import { decode, encode } from '../../src/dlmfs/9p-codec.js';
import { AT_REMOVEDIR, type Message, NOFID, VERSION } from '../../src/dlmfs/9p-messages.js';

t.test('what the kernel sends to mount, make, open, close and remove is answered in its shape', async (t) => {
  const answer = bareFiles();
  const ask = (message: Message): Message => {
    const reply = decode(answer(encode(message)));
    if (reply.k === 'malformed') throw new Error(reply.why);
    t.equal(reply.tag, message.tag);
    return reply;
  };
  const tag = 7;
  const dir = { type: 0x80, version: 0, path: 2 };
  const file = { type: 0, version: 0, path: 3 };
  t.match(ask({ k: 'Tversion', tag, msize: 65_536, version: VERSION }), { k: 'Rversion', msize: 65_536, version: VERSION });
  ask({ k: 'Tattach', tag, fid: 1, afid: NOFID, uname: '', aname: '', nUname: 0 });
  t.match(ask({ k: 'Tgetattr', tag, fid: 1, mask: 0x7ff }), { k: 'Rgetattr', valid: 0x7ff, mode: 0o40755, nlink: 1 });
  t.match(ask({ k: 'Twalk', tag, fid: 1, newfid: 2, names: ['d'] }), { k: 'Rlerror', ecode: 2 });
  t.match(ask({ k: 'Tmkdir', tag, dfid: 1, name: 'd', mode: 0o755, gid: 0 }), { k: 'Rmkdir', qid: dir });
  t.match(ask({ k: 'Twalk', tag, fid: 1, newfid: 2, names: ['d'] }), { k: 'Rwalk', qids: [dir] });
  t.match(ask({ k: 'Twalk', tag, fid: 2, newfid: 3, names: [] }), { k: 'Rwalk', qids: [] });
  t.match(ask({ k: 'Tlcreate', tag, fid: 3, name: 'f', flags: 2, mode: 0o644, gid: 0 }), { k: 'Rlcreate', qid: file });
  t.match(ask({ k: 'Tgetattr', tag, fid: 3, mask: 0x7ff }), { k: 'Rgetattr', mode: 0o100644, size: 64 });
  t.match(ask({ k: 'Tclunk', tag, fid: 3 }), { k: 'Rclunk' });
  t.match(ask({ k: 'Twalk', tag, fid: 1, newfid: 4, names: ['d', 'f'] }), { k: 'Rwalk', qids: [dir, file] });
  t.match(ask({ k: 'Tlopen', tag, fid: 4, flags: 2 }), { k: 'Rlopen', qid: file });
  t.match(ask({ k: 'Tunlinkat', tag, dirfid: 1, name: 'd', flags: AT_REMOVEDIR }), { k: 'Rlerror', ecode: 39 });
  t.match(ask({ k: 'Tunlinkat', tag, dirfid: 2, name: 'f', flags: 0 }), { k: 'Runlinkat' });
  t.match(ask({ k: 'Tunlinkat', tag, dirfid: 1, name: 'd', flags: AT_REMOVEDIR }), { k: 'Runlinkat' });
  t.match(ask({ k: 'Txattrwalk', tag, fid: 1, newfid: 9, name: 'a' }), { k: 'Rlerror', ecode: 95 });
});
