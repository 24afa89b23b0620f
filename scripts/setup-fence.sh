#!/bin/sh
# Installs what the fencing tests with a real management controller need (Debian, Ubuntu): a simulated one and a client.
# Without them those tests say so and are skipped. No service is started.
set -e
if command -v ipmi_sim >/dev/null && command -v ipmitool >/dev/null; then
  echo "ipmi_sim and ipmitool are there already"
  exit 0
fi
command -v apt-get >/dev/null || { echo "no apt-get here: install OpenIPMI's ipmi_sim, and ipmitool" >&2; exit 1; }
sudo=
[ "$(id -u)" -eq 0 ] || sudo=sudo
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends openipmi ipmitool
