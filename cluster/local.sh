#!/usr/bin/env bash
# Several real Ray nodes on this machine, for development and tests: `head`, on which no work is
# done, `gpu`, which has the custom resource of that name (and no GPU), and `verifier`.
#
#   cluster/local.sh start [--gpu-cpus N] [--verifier-cpus N] [--object-store-mb N] [--limit S]
#   eval "$(cluster/local.sh env)"    lets this shell use it; `start` prints these lines too
#   cluster/local.sh nodes            what Ray says of them
#   cluster/local.sh status           which run; exit code 3 where one does not
#   cluster/local.sh kill-node NAME   as if its machine were gone; `start` brings it back
#   cluster/local.sh stop             ends what `start` began, and nothing else of this machine
#
# The options can be set as HALOFORGE_GPU_CPUS, HALOFORGE_VERIFIER_CPUS, HALOFORGE_OBJECT_STORE_MB
# and HALOFORGE_LIMIT_S. All state is in one folder, HALOFORGE_LOCAL, which `stop` removes: give
# another to have a second cluster. CPUs are booked, not measured: together they may be more than
# the machine has.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${HALOFORGE_LOCAL:-/tmp/haloforge-local-$(id -u)}
case $folder in /*) ;; *) folder=$PWD/$folder ;; esac
gpu_cpus=${HALOFORGE_GPU_CPUS:-$(nproc)}
verifier_cpus=${HALOFORGE_VERIFIER_CPUS:-$(nproc)}
object_store_mb=${HALOFORGE_OBJECT_STORE_MB:-256}
limit_s=${HALOFORGE_LIMIT_S:-180}
names="verifier gpu head" # in the order in which they end
ours=.haloforge-local     # marks the folder as one that may be removed

say() { echo "local.sh: $*" >&2; }
fail() {
    say "$1"
    exit "${2:-2}"
}

python=${HALOFORGE_PYTHON:-$root/.venv/bin/python}
[ -x "$python" ] || python=$(command -v python3 || true)

# One of these commands at a time, in a folder that is still there when its turn comes.
hold() {
    while :; do
        mkdir -m 700 "$folder" 2>/dev/null || [ -d "$folder" ] || fail "cannot make $folder"
        exec 9<"$folder"
        flock 9
        if [ "$folder" -ef /dev/fd/9 ]; then break; fi
    done
    [ -O "$folder" ] || fail "$folder is another user's: set HALOFORGE_LOCAL"
    if [ ! -e "$folder/$ours" ]; then
        [ -z "$(ls -A "$folder")" ] || fail "$folder holds something else: set HALOFORGE_LOCAL"
        mkdir "$folder/nodes" "$folder/logs"
        touch "$folder/$ours"
    fi
}

# When a process began, in ticks since the machine did; empty when there is none of that number.
began() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20 || true; }

# PIDs of a node: the session that it began, what carries its mark (a job's driver has a session of
# its own), and all that descends from those. Ray's workers overwrite their environment, so that the
# mark alone would not find them.
members() {
    local session=none start marked other
    if [ -s "$folder/nodes/$1" ]; then
        read -r session start <"$folder/nodes/$1"
        other=$(began "$session")
        [ -z "$other" ] || [ "$other" = "$start" ] || session=none # another's number by now
    fi
    marked=$(grep -Fxzls "HALOFORGE_NODE=$folder/$1" /proc/[0-9]*/environ | cut -d/ -f3 || true)
    ps -e -o pid=,ppid=,sid=,stat= | awk -v session="$session" -v marked="$marked" -v self="$$" '
        BEGIN { split(marked, pids); for (i in pids) seed[pids[i]] }
        $4 !~ /^Z/ { parent[$1] = $2; if ($3 == session || $1 in seed) mine[$1] }
        END {
            do {
                more = 0
                for (pid in parent)
                    if (!(pid in mine) && (parent[pid] in mine)) { mine[pid]; more = 1 }
            } while (more)
            for (pid in mine) if (pid != self) print pid
        }'
}

runs() {
    local session start
    [ -s "$folder/nodes/$1" ] || return 1
    read -r session start <"$folder/nodes/$1"
    [ -n "$start" ] && [ "$(began "$session")" = "$start" ] && ! grep -qs '^State:.*Z' "/proc/$session/status"
}

# SIGKILL to all of a node until nothing is left of it.
kill_node() {
    local pids
    for _ in $(seq 50); do
        pids=$(members "$1")
        if [ -z "$pids" ]; then
            rm -f "$folder/nodes/$1"
            return 0
        fi
        # shellcheck disable=SC2086  # a list of words
        kill -KILL $pids 2>/dev/null || true
        sleep 0.2
    done
    fail "processes of node $1 do not end: $(echo "$pids" | tr '\n' ' ')" 4
}

# Its first process ends the others when asked to; who does not go in ten seconds is killed.
end_node() {
    local session _
    if runs "$1"; then
        read -r session _ <"$folder/nodes/$1"
        kill -TERM "$session" 2>/dev/null || true
        for _ in $(seq 50); do
            runs "$1" || break
            sleep 0.2
        done
    fi
    kill_node "$1"
}

end_all() {
    for name in $names; do end_node "$name"; done
}

remove() {
    [ ! -e "$folder/$ours" ] || rm -rf "$folder"
}

# A `ray start` as the leader of a session of its own, which stays. It must not inherit the lock. Its
# folder is its own too: nodes that share one take the same sockets, and replace a job's files, which
# are uploaded to each node, under the feet of the others.
start_node() {
    local name=$1 pid
    shift
    HALOFORGE_NODE=$folder/$name setsid "$python" -m ray.scripts.scripts start --block \
        --node-name="$name" --temp-dir="$folder/$name" --object-store-memory=$((object_store_mb * 1024 * 1024)) \
        --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0 "$@" \
        >"$folder/logs/$name.log" 2>&1 </dev/null 9<&- &
    pid=$!
    echo "$pid $(began "$pid")" >"$folder/nodes/$name"
}

free_ports() {
    "$python" - "$1" <<'END'
import socket
import sys

sockets = [socket.create_server(("", 0)) for _ in range(int(sys.argv[1]))]
print(*(each.getsockname()[1] for each in sockets))
END
}

start_head() {
    local port dashboard client
    rm -rf "$folder/head" "$folder/address" "$folder/dashboard"
    (umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$folder/token")
    read -r port dashboard client <<<"$(free_ports 3)"
    start_node head --head --num-cpus=0 --num-gpus=0 --port="$port" \
        --include-dashboard=true --dashboard-host=127.0.0.1 --dashboard-port="$dashboard" \
        --ray-client-server-port="$client"
    for _ in $(seq $((limit_s * 2))); do
        if [ -s "$folder/head/ray_current_cluster" ]; then break; fi
        runs head || told_by head "did not start"
        sleep 0.5
    done
    [ -s "$folder/head/ray_current_cluster" ] || told_by head "did not start in $limit_s s"
    cp "$folder/head/ray_current_cluster" "$folder/address"
    echo "http://127.0.0.1:$dashboard" >"$folder/dashboard"
}

told_by() {
    tail -n 8 "$folder/logs/$1.log" >&2 || true
    fail "node $1 $2" 4
}

# What `ray start` and its clients need to know. The token itself is in a file that only we can read.
settings() {
    printf 'export %s=%q\n' RAY_AUTH_MODE token RAY_AUTH_TOKEN_PATH "$folder/token" \
        RAY_API_SERVER_ADDRESS "$(cat "$folder/dashboard")" RAY_ADDRESS "$(cat "$folder/address")"
}

# Until Ray has the nodes named, and knows that the other one is lost, if there is a second argument.
# It carries a node's mark, so that it is not left behind either.
wait_for_nodes() {
    local waiting
    HALOFORGE_NODE=$folder/head RAY_API_SERVER_ADDRESS=$(cat "$folder/dashboard") "$python" \
        "$root/cluster/nodes.py" --wait "$1" --gone "${2:-}" --limit "$limit_s" 9<&- &
    waiting=$!
    while kill -0 "$waiting" 2>/dev/null; do
        for name in ${1//,/ }; do
            runs "$name" || told_by "$name" "ended"
        done
        sleep 0.5
    done
    wait "$waiting"
}

undo() {
    trap - EXIT
    say "not started: what was begun is ended"
    end_all
    remove
    exit "$1"
}

start() {
    "${python:-false}" -c 'import ray' 2>/dev/null || fail "no Ray: run make venv in $root" 3
    # Ray's sockets lie 72 characters deeper; the kernel allows 107.
    [ ${#folder} -le 31 ] || fail "HALOFORGE_LOCAL is longer than 31 characters: $folder"
    hold
    trap 'undo $?' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$folder/token
    PATH=$(dirname "$python"):$PATH # a job says `python`
    export RAY_USAGE_STATS_ENABLED=0 RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0
    unset RAY_AUTH_TOKEN RAY_ADDRESS RAY_API_SERVER_ADDRESS
    if ! runs head; then
        end_all
        say "starting head (half a minute) ..."
        start_head
    fi
    local address
    address=$(cat "$folder/address")
    if ! runs gpu; then
        kill_node gpu
        rm -rf "$folder/gpu"
        wait_for_nodes head gpu >/dev/null
        start_node gpu --address="$address" --num-cpus="$gpu_cpus" --num-gpus=0 \
            --resources='{"gpu":1}'
    fi
    if ! runs verifier; then
        kill_node verifier
        rm -rf "$folder/verifier"
        wait_for_nodes head verifier >/dev/null
        start_node verifier --address="$address" --num-cpus="$verifier_cpus" --num-gpus=0 \
            --resources='{"verifier":1}'
    fi
    wait_for_nodes head,gpu,verifier >&2
    trap - EXIT
    settings
}

stop() {
    if [ ! -e "$folder/$ours" ]; then
        say "nothing to stop in $folder"
        return 0
    fi
    hold
    end_all
    remove
}

status() {
    local code=0
    for name in head gpu verifier; do
        if runs "$name"; then
            echo "$name runs, $(members "$name" | wc -l) processes"
        else
            echo "$name does not run"
            code=3
        fi
    done
    [ ! -e "$folder/dashboard" ] || echo "dashboard $(cat "$folder/dashboard"), logs $folder/logs"
    return $code
}

kill_named() {
    case " $names " in
    *" ${1:-} "*) ;;
    *) fail "name a node: head, gpu or verifier" ;;
    esac
    runs "$1" || fail "node $1 does not run" 3
    hold
    kill_node "$1"
}

number() {
    [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || fail "$1 takes a number above 0, not '${2:-}'"
    printf -v "$3" '%s' "$2"
}

command=${1:-}
[ $# -eq 0 ] || shift
if [ "$command" = start ]; then
    while [ $# -gt 0 ]; do
        case $1 in
        --gpu-cpus) number "$1" "${2:-}" gpu_cpus ;;
        --verifier-cpus) number "$1" "${2:-}" verifier_cpus ;;
        --object-store-mb) number "$1" "${2:-}" object_store_mb ;;
        --limit) number "$1" "${2:-}" limit_s ;;
        *) fail "start has no option $1; known: --gpu-cpus, --verifier-cpus, --object-store-mb, --limit" ;;
        esac
        shift 2
    done
fi
case $command in
start) start ;;
stop) stop ;;
status) status ;;
kill-node) kill_named "${1:-}" ;;
env | nodes)
    runs head || fail "no cluster runs here: $0 start" 3
    if [ "$command" = env ]; then
        settings
    else
        eval "$(settings)"
        exec "$python" "$root/cluster/nodes.py" --limit 20
    fi
    ;;
*) fail "usage: $0 start|stop|status|nodes|env|kill-node NAME" ;;
esac
