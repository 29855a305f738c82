#!/usr/bin/env bash
# Starts a real cluster of separate processes: 3 voters, 4 nodes, 2 routers.
# With GAVEL_HOSTS=3 each network namespace stands for a host; without it everything listens on the loopback.
. "$(dirname "$0")/cluster.sh"

ls "$GAVEL_RUN"/*.pid >/dev/null 2>&1 && die "$GAVEL_RUN has a running cluster: stop.sh first"
mkdir -p "$GAVEL_RUN"

if [ "$GAVEL_HOSTS" -gt 0 ]; then
    [ "$(id -u)" = 0 ] || die "network namespaces need root"
    ip link add "$BRIDGE" type bridge
    ip addr add "$SUBNET.254/24" dev "$BRIDGE"
    ip link set "$BRIDGE" up
    for host in $(seq "$GAVEL_HOSTS"); do
        ip netns add "gavel$host"
        ip link add "gavelv$host" type veth peer name eth0 netns "gavel$host"
        ip link set "gavelv$host" master "$BRIDGE" up
        ip -n "gavel$host" addr add "$SUBNET.$host/24" dev eth0
        ip -n "gavel$host" link set eth0 up
        ip -n "gavel$host" link set lo up
    done
    echo "$GAVEL_HOSTS" >"$GAVEL_RUN/hosts"
fi

peers= addresses=
for i in $(seq "$CONTROLS"); do
    address=$(host_address "$i"):$((7000 + i))
    peers+=${peers:+,}$i=$address
    addresses+=${addresses:+,}$address
done
echo "$addresses" >"$GAVEL_RUN/control"

for i in $(seq "$CONTROLS"); do
    start_process "control-$i" "$i" control --id "$i" --peers "$peers" --listen "$(host_address "$i"):$((7000 + i))"
done
for i in $(seq "$NODES"); do
    start_process "node-$i" "$i" node --control "$addresses" --name "node-$i" --probes on \
        --listen "$(host_address "$i"):$((7100 + i))"
done
for i in $(seq "$ROUTERS"); do
    start_process "router-$i" "$i" router --control "$addresses" --name "router-$i" --probes on \
        --listen "$(host_address "$i"):$((7200 + i))" --http-listen "$(host_address "$i"):$((7300 + i))"
done
echo "next: $here/seed.sh"
