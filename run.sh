#!/usr/bin/env bash
# Everything that LaRes can do, one command each; without an argument it lists them. Runs on bash 3.2 and later.

set -u -f # -f: FLAGS and SEEDS are split into words, and no word is expanded as a file pattern
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" || exit 1
python=.venv/bin/python

# ------------------------------------------------------------------------------------------------ what is run

quickstart_flags=(
    --model=builtin
    --env-name=drawer-close-v2
    --total-timesteps=60000
    --init-exploration-steps=1500
    --LLM_freq=2500
    --display-interval=3000
    --eval-episodes=20
    --hidden-size=128
    --stop_success=0.95
    --seed=1
)

usage() {
    cat <<'END'
bash run.sh COMMAND

  quickstart [flag...]      train on an easy task until a policy solves it, and write a report; no API key, no GPU
  setup                     make .venv with all that requirements.txt names; every other command does it when needed
  test [pytest flag...]     style, types, and the whole test suite, on two processes; 15 minutes
  soak [pytest flag...]     every pair of flag values in a small run each; three minutes
  bench [flag...]           how fast it is, against yardsticks in the same run; ten minutes
  sweep SWEEP [flag...]     many runs as one, such as the sweeps paper, quick, learning, ablations; `sweep --help` says more
  from_scratch [task...]    the published runs without a human reward (five tasks unless you name some), as a sweep
  with_init [task...]       the published runs that start from the human reward (twelve tasks unless you name some)

Variable of the last three:
  JOBS=2                    runs at once (default: 1)

Variables of the last two:
  SEEDS="1 2 3"             one run per task and seed (default: 1)
  MODEL=builtin             the language model (default: gpt-4o-mini, which needs OPENAI_API_KEY)
  FLAGS="--hide_goal 1"     flags added to every run, or to the sweep

Variable of all:
  PYTHON=python3.12         the Python, 3.10 to 3.13, that .venv is made from

Paths are relative to the directory of run.sh.
END
}

die() { # exit status, message
    echo "run.sh: $2" >&2
    exit "$1"
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# ------------------------------------------------------------------------------------------------ set-up

version_of() { # python; prints its version, and fails if it does not run or is not supported
    "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3]); sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
        2>/dev/null </dev/null
}

find_python() { # prints the first supported one
    local candidate
    for candidate in python3 python3.12 python3.11 python3.13 python3.10 python; do
        version_of "$candidate" >/dev/null && echo "$candidate" && return
    done
    return 1
}

make_venv() { # python, or nothing
    local base=$1
    if [ -z "$base" ]; then base=$(find_python) || have uv ||
        die 1 "found no Python 3.10 to 3.13; install one, or say where it is: PYTHON=/path/to/python3.12 bash run.sh setup"; fi
    rm -rf .venv || die 1 "cannot remove the old .venv"
    if [ -z "$base" ]; then
        echo "making .venv with uv, which brings a Python"
        uv venv --seed --python 3.12 .venv || die 1 "uv could not make .venv, see above"
    else
        echo "making .venv with $base ($(version_of "$base"))"
        "$base" -m venv .venv || { have uv && rm -rf .venv && uv venv --seed --python "$base" .venv; } ||
            die 1 "$base could not make .venv, see above; on Debian and Ubuntu this may help: apt install python3-venv"
    fi
}

install() { # requirements file
    local quiet=''
    [ -t 1 ] || quiet=--quiet
    # uv is faster, but does not read pip's configuration (mirrors, local wheels), so pip may succeed where uv fails.
    if have uv; then
        uv pip install $quiet --python "$python" -r "$1" && return
        echo "uv failed, trying pip"
    fi
    "$python" -m pip install $quiet --disable-pip-version-check --no-input -r "$1" ||
        die 1 "the installation failed, see above; run the same command again to go on"
}

setup() {
    # The stamp is removed first and written last: a .venv without it was left by an interrupted set-up, and is made anew.
    local stamp=.venv/lares-stamp requirements installed chosen=''
    requirements=$(cksum <requirements.txt) || die 1 "cannot read requirements.txt"
    if [ -n "${PYTHON:-}" ]; then
        chosen=$(version_of "$PYTHON") || die 1 "PYTHON=$PYTHON is not a Python 3.10 to 3.13; give the path of one, or unset it"
    fi
    if [ -f "$stamp" ] && installed=$(version_of "$python") && [ "${chosen:-$installed}" = "$installed" ]; then
        [ "$(cat "$stamp")" != "$requirements" ] || return 0
        rm -f "$stamp"
    else
        make_venv "${PYTHON:-}"
    fi
    install requirements.txt
    echo "$requirements" >"$stamp" || die 1 "cannot write $stamp"
    echo "set-up complete: Python $(version_of "$python") in .venv"
}

# ------------------------------------------------------------------------------------------------ signals

interrupted=''

forward() { # signal, exit status; the run ends by itself
    interrupted=$2
    pass_on "$1"
    echo "run.sh: told the run to finish its episodes, keep its log and its best policy, and end; waiting for it" >&2
}

pass_on() { # signal, sent to the run once
    local pid
    for pid in $(jobs -rp); do kill "-$1" "$pid" 2>/dev/null; done
}

# ------------------------------------------------------------------------------------------------ commands

trap 'exit 130' INT
command=${1:-help}
[ $# -eq 0 ] || shift

case $command in
    setup)
        setup
        ;;
    quickstart)
        setup
        trap 'forward INT 130' INT
        trap 'forward TERM 143' TERM
        trap 'forward HUP 129' HUP
        trap 'pass_on USR1' USR1 # a request for a checkpoint, as Slurm sends it
        trap '' PIPE             # the reader of this output may go away; the run goes on
        # -m gives the run a process group of its own, so that Ctrl-C reaches it once, from forward(). The test comes
        # after the fork, so that no signal is lost between the two.
        set -m
        [ -z "$interrupted" ] && exec "$python" lares_from_scratch.py "${quickstart_flags[@]}" "$@" </dev/null &
        set +m
        # No $(jobs) here: bash 5.2 loses a SIGINT that arrives while it waits for a command substitution.
        while kill -0 $! 2>/dev/null; do sleep 0.2; done
        wait $! || exit
        case " $* " in
            *log[-_]dir* | *resume*) echo "to see what it did: $python report.py RUN, with the directory named above" ;;
            *) exec "$python" report.py ;;
        esac
        ;;
    test)
        setup
        exec </dev/null
        "$python" -m ruff check . && "$python" -m ruff format --check . && "$python" -m mypy &&
            "$python" -m pytest -n 2 --dist loadfile --durations=15 "$@"
        ;;
    soak)
        setup
        exec </dev/null "$python" -m pytest -m soak --durations=15 "$@"
        ;;
    bench)
        setup
        install benchmarks/requirements.txt
        exec "$python" benchmarks/speed.py "$@"
        ;;
    sweep)
        setup
        exec "$python" sweep.py "$@"
        ;;
    from_scratch | with_init)
        setup
        [ $# -eq 0 ] || set -- --env-name "$@"
        # shellcheck disable=SC2086
        exec "$python" sweep.py paper --only "$command" "$@" --seed ${SEEDS:-1} --model="${MODEL:-gpt-4o-mini}" ${FLAGS:-}
        ;;
    help | -h | --help)
        usage
        ;;
    *)
        die 2 "there is no command '$command'; \`bash run.sh\` lists them"
        ;;
esac
