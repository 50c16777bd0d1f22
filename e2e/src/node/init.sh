# The first process of a real node's namespaces: `sh -c … init DIR COMMAND…`. When it ends, the kernel ends all the rest.
set -eu
dir=$1
shift

# What the node's programs write to fixed places is for memory, and goes with the mounts. The folder of this run stays the
# real one, wherever it is.
own=$dir/own
mkdir "$own"
mount -t tmpfs tmpfs "$own"
mkdir "$own/dir"
mount --bind "$dir" "$own/dir"
for place in var/lib var/log; do
  mkdir -p "$own/$place/upper" "$own/$place/work"
  mount -t overlay -o "lowerdir=/$place,upperdir=$own/$place/upper,workdir=$own/$place/work" overlay "/$place"
done
mount -t tmpfs tmpfs /run
mkdir -p /var/lib/kubelet /var/lib/containerd "$dir"
for place in /var/lib/kubelet /var/lib/containerd; do
  mount -t tmpfs tmpfs "$place"
done
mount --bind "$own/dir" "$dir"

# The kubelet sets these for the whole machine: here it gets copies.
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
  kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  copy=$own/sysctl-$(basename "$name")
  cat "/proc/sys/$name" >"$copy"
  mount --bind "$copy" "/proc/sys/$name"
done

# A bridge is a device with an address that every kernel has; nothing is connected to it.
ip link set lo up
ip link add node0 type bridge
ip address add "$NODE_IPV4/24" dev node0
ip link set node0 up
ip route add default dev node0
if [ -e /proc/sys/net/ipv6 ]; then
  ip -6 address add "$NODE_IPV6/64" dev node0 nodad
  ip -6 route add default dev node0
fi

"$@" || exit $?
exit 0
