import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const SOAK = fileURLToPath(new URL('./soak.js', import.meta.url));

function soak(args: string[]): Promise<{ code: unknown; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [SOAK, ...args], { timeout: 60_000 }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : error.code, stdout, stderr });
    });
  });
}

t.test('a soak runs seeds until its time is over and ends with one result line', async (t) => {
  const { code, stdout } = await soak(['--minutes', '0.01', '--from', '7', '--threads', '1']);
  t.equal(code, 0);
  t.match(stdout, /^soak from seed 7: \d+ seeds in .* simulated hours, \d+ events/m);
  t.match(stdout, /\n0 failed\n$/);
});

t.test('wrong usage of the soak ends with 64', async (t) => {
  t.match(await soak(['--minutes', 'many']), { code: 64, stderr: /--minutes many must be a number.*\nusage:/ });
  t.match(await soak(['--hours', '1']), { code: 64, stderr: /usage:/ });
});
