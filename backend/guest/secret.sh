# Gives a secret to a running guest, or takes it away. Runs as root or as the
# guest's user, after lines that set key, user and keep (yes or no). The value
# is the standard input: it is on no command line, and in memory alone.

# shellcheck disable=SC2154
set -e
umask 077
dir=/run/sbxfs
root=
[ "$(id -u)" = 0 ] || root='sudo -n'

Own() {
  [ -n "$root" ] || chown "$user:" "$1"
}

if [ ! -d $dir ]; then
  if [ "$(stat -f -c %T /run)" != tmpfs ]; then
    echo '/run is not in memory'
    exit 1
  fi
  $root mkdir -m 700 $dir
  $root chown "$user:" $dir
fi
if [ "$keep" = yes ]; then
  cat >$dir/.new
  chmod 400 $dir/.new
  Own $dir/.new
  mv -f $dir/.new "$dir/$key"
else
  rm -f "$dir/$key"
fi

# What sshd sets for a command: it takes lines, so no value of several.
newline='
'
{
  [ ! -r /var/lib/sbxfs/environment ] || cat /var/lib/sbxfs/environment
  for file in "$dir"/[A-Za-z_]*; do
    [ -f "$file" ] || continue
    value=$(cat "$file")
    case $value in
      *"$newline"*) ;;
      # The shell's own printf: no process with the value in its arguments.
      *) printf '%s=%s\n' "${file##*/}" "$value" ;;
    esac
  done
} >$dir/.environment.new
Own $dir/.environment.new
mv -f $dir/.environment.new $dir/.environment
