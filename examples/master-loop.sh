#!/bin/sh
# Who is the master? The loop that is usually written on a dlmfs, in shell: the kernel's own at /dlm, or tsdlm's (tsdlm mount).
#
#   master-loop.sh [DIR [DOMAIN [LOCK [SECONDS]]]]     defaults: /dlm example master 1
#
# Joins the domain, tries to become master without ever waiting, works while it is, and leaves nothing behind.
# Opening the file takes the lock, and closing it does not give it back: the *node* keeps it until the name is removed, or
# until an open that waits asks for it. A try of another node asks for nothing, so it fails as long as this node keeps the lock.
set -u
dir=${1:-/dlm} domain=${2:-example} lock=${3:-master} pause=${4:-1}
file=$dir/$domain/$lock

mkdir "$dir/$domain" 2>/dev/null
[ -d "$dir/$domain" ] || { echo "cannot join $domain in $dir" >&2; exit 1; }

leave() {
  trap - EXIT
  # Gives the lock to whoever tries next. The domain stays while others of this node use it.
  rm -f "$file"
  rmdir "$dir/$domain" 2>/dev/null
  echo "left"
  exit 0
}
trap leave INT TERM HUP EXIT

work() {
  : # What only the master does.
}

role=
while :; do
  # An open for writing takes the lock exclusively; "nonblock" makes it a try. No byte is written.
  if dd if=/dev/null of="$file" oflag=nonblock conv=notrunc 2>/dev/null; then is=master; else is=standby; fi
  [ "$is" = "$role" ] || echo "$is"
  role=$is
  [ "$role" = standby ] || work
  # In the background, so that a signal need not wait for it.
  sleep "$pause" & wait $!
done
