#!/bin/sh
# The first process of a guest: mounts, drivers, addresses, then the door by which the harness commands.
# @WORDS@ are filled in by the harness.
export PATH=/usr/sbin:/usr/bin HOME=/home/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=0755 tmpfs /run
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
hostname -F /etc/hostname
while read -r driver; do insmod "$driver"; done </lab/drivers
ip link set lo up
ip address add @DOOR_ADDRESS@/24 dev eth0
ip link set eth0 up
ip address add @AGENT_ADDRESS@/24 dev eth1
ip link set eth1 up
# What was loaded before anybody came.
cut -d ' ' -f 1 /proc/modules >/lab/loaded
/usr/lib/lab-door </dev/null
echo "lab: the door is shut: $?"
poweroff -f
