#!/usr/bin/env bash
# Brings up the two-node lab with the demo of deploy/examples/hello, and shows who reached whom and what
# denied the rest. Ends with an error when it is not as the policy says.
set -euo pipefail
source "$(dirname "$0")/env.sh"

if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || fail setup/not-root "a lab needs root" "run make as root, or install sudo"
	exec sudo -E env PATH="$PATH" "$root/scripts/lab.sh" "$@"
fi

export HEDDLE_LAB=${LAB:-default}
heddle=$root/bin/heddle
wrong=0

say "${STEP:-}heddle lab up (two nodes, lab '$HEDDLE_LAB'; an older lab of this name is removed)"
"$heddle" lab down >&2
"$heddle" lab up --nodes 2 >&2
say "heddle lab apply -f deploy/examples/hello"
"$heddle" lab apply -f deploy/examples/hello >&2

# reached FROM ADDRESS: whether the pod gets an answer over HTTP.
reached() {
	local address=$2
	case $address in *:*) address="[$address]" ;; esac
	"$heddle" lab exec -n hello "$1" -- curl -s -o /dev/null --max-time 1 "http://$address:8080/" </dev/null
}

say "who reaches whom on TCP port 8080"
pods=$("$heddle" lab get pods -n hello -o json)
node_of() { jq -r --arg name "$1" '.items[] | select(.metadata.name == $name) | .spec.nodeName' <<<"$pods"; }
printf '%-10s %-10s %-18s %-10s %-26s %s\n' FROM NODE TO NODE ADDRESS ANSWER
example=
while read -r web web_node address; do
	case $address in *:*) ;; *) example=${example:-$address} ;; esac
	for from in client stranger; do
		answer=denied
		! reached "$from" "$address" || answer=reached
		printf '%-10s %-10s %-18s %-10s %-26s %s\n' "$from" "$(node_of "$from")" "$web" "$web_node" "$address" "$answer"
		case $from/$answer in
		client/reached | stranger/denied) ;;
		*) wrong=$((wrong + 1)) ;;
		esac
	done
done < <(jq -r '.items[] | select(.metadata.labels.app == "web")
	| . as $pod | .status.podIPs[].ip | "\($pod.metadata.name) \($pod.spec.nodeName) \(.)"' <<<"$pods")

say "heddle observe: what was denied, and by which policy"
printf '%-10s %-22s %-28s %-22s %s\n' NODE FROM TO REASON "DENIED BY"
denied=0
while read -r node; do
	while IFS=$'\t' read -r from to reason policy; do
		printf '%-10s %-22s %-28s %-22s %s\n' "$node" "$from" "$to" "$reason" "$policy"
		denied=$((denied + 1))
	done < <("$heddle" observe --node "$node" --verdict DROPPED --namespace hello --last 20 -o jsonpb | jq -r '
		select(.flow) | .flow
		| "\(.source.namespace)/\(.source.pod_name)" as $from
		| "\(.destination.namespace)/\(.destination.pod_name) \(.IP.ipVersion // "")" as $to
		| [$from, $to, (.drop_reason_desc // ""),
		   ([(.ingress_denied_by // [])[], (.egress_denied_by // [])[]] | map("\(.kind // "NetworkPolicy") \(.namespace)/\(.name)") | join(", "))]
		| @tsv' | sort -u)
done < <("$heddle" lab status -o json | jq -r '.nodes[].name')

if [ "$wrong" != 0 ] || [ "$denied" = 0 ]; then
	fail lab/demo "the demo is not as its policy says: $wrong wrong answers, $denied denied flows seen" \
		"look with '$heddle status --node NODE' and '$heddle lab status'; 'make down' removes the lab"
fi
cat <<END

The lab is up. Type next:
  export PATH=$root/bin:\$PATH$([ "$HEDDLE_LAB" = default ] || printf '\n  export HEDDLE_LAB=%s' "$HEDDLE_LAB")
  heddle lab get pods -A -o wide
  heddle lab exec -n hello client -- curl -s http://${example:-ADDRESS}:8080/
  heddle observe --follow
  heddle policy decide -f deploy/examples/shop --from shop/front --to shop/database --port 5432 --protocol TCP
  make down        removes it: namespaces, links, pins, processes and files
END
