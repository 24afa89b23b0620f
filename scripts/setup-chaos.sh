#!/bin/sh
# Installs what `npm run chaos` needs (Debian, Ubuntu): network namespaces, flock, and wall clocks that can be moved.
# Without them the run, or the one fault, says so and is left out.
set -e
faketime=$(find /usr/lib -name libfaketimeMT.so.1 2>/dev/null | head -n 1)
if command -v ip >/dev/null && command -v flock >/dev/null && [ -n "$faketime" ]; then
  echo "ip, flock and libfaketime are there already"
  exit 0
fi
command -v apt-get >/dev/null || { echo "no apt-get here: install iproute2, util-linux and faketime" >&2; exit 1; }
sudo=
[ "$(id -u)" -eq 0 ] || sudo=sudo
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends iproute2 util-linux faketime
