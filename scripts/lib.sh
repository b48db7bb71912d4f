# shellcheck shell=bash
# What quickstart and test share: a Python environment in .venv. All else is `consolidate doctor --fix`.

say() { printf '==> %s\n' "$*" >&2; }

# die STATUS WHAT HINT...: 69 is EX_UNAVAILABLE of sysexits.h
die() {
  local status=$1
  shift
  printf '%s\n' "$@" >&2
  exit "$status"
}

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# The packages among the arguments that are not installed.
missing() {
  local package
  for package in "$@"; do
    dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || echo "$package"
  done
}

apt_install() {
  local packages
  mapfile -t packages < <(missing "$@")
  [ ${#packages[@]} -gt 0 ] || return 0
  can_install || die 69 "Missing: ${packages[*]}" "Type: sudo apt-get install ${packages[*]}"
  say "Installing ${packages[*]}"
  local get=(env DEBIAN_FRONTEND=noninteractive apt-get -oDPkg::Lock::Timeout=300 --yes -qq)
  "${get[@]}" install --no-install-recommends "${packages[@]}" >/dev/null 2>&1 && return
  "${get[@]}" update # an old or empty list of packages was the likely reason
  "${get[@]}" install --no-install-recommends "${packages[@]}" >/dev/null
}

# Each candidate is run: a version manager's stand-in may be there and not work.
find_python() {
  local python
  for python in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      echo "$python"
      return
    fi
  done
  return 1
}

make_venv() {
  local python
  if ! python=$(find_python); then
    can_install && apt_install python3 python3-venv
    python=$(find_python) || die 69 "Python 3.11 or later is needed." "Install it, or name it: PYTHON=/path/to/python3 $0"
  fi
  # Debian keeps what `venv` needs in a package of its own, named after the interpreter's version.
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    local package
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    can_install || die 69 "This Python can't make environments." "Type: sudo apt-get install $package"
    apt_install "$package"
  fi
  say "Making .venv with $("$python" --version)"
  "$python" -m venv --clear .venv
}

# An environment works where it was made: its programs have its path in their first line.
venv_works() { .venv/bin/python -c '' 2>/dev/null && grep -qF "$(pwd -P)/.venv/" .venv/bin/pip 2>/dev/null; }

# python_environment LOCK: .venv has what LOCK pins, and consolidate itself. Nothing is done when an earlier run did it:
# the stamp in .venv has the hash of all that decides it.
python_environment() {
  local lock=$1 stamp want
  stamp=.venv/.installed-$(basename "$lock")
  want=$(cat pyproject.toml "$lock" | sha256sum)
  venv_works || make_venv
  if [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && [ -x .venv/bin/consolidate ]; then
    return
  fi
  say "Installing the packages of $lock"
  local pip=(.venv/bin/python -m pip --quiet --disable-pip-version-check install)
  "${pip[@]}" --requirement "$lock"
  "${pip[@]}" --no-deps --editable .
  echo "$want" >"$stamp"
}
