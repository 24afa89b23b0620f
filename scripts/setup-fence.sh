#!/bin/sh
# Installs what the fencing tests with a real management controller need (Debian, Ubuntu): a simulated one and a client.
# Without them those tests say so and are skipped. No service is started.
# With --agents: the distribution's fence agents too (much Python), for the tests with a real one.
set -e
packages=
{ command -v ipmi_sim && command -v ipmitool; } >/dev/null || packages="openipmi ipmitool"
if [ "${1:-}" = --agents ] && ! command -v fence_ipmilan >/dev/null; then packages="$packages fence-agents"; fi
if [ -z "$packages" ]; then
  echo "all is there already"
  exit 0
fi
command -v apt-get >/dev/null || { echo "no apt-get here: install OpenIPMI's ipmi_sim, and ipmitool" >&2; exit 1; }
sudo=
[ "$(id -u)" -eq 0 ] || sudo=sudo
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages
