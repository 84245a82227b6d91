"""The shipped swatchrc.example, run by the real swatchdog.

A recorder stands in for bird_sentinel: first in PATH, it notes its arguments and, where the last of
them is "-", its standard input, byte for byte. One run of swatchdog reads all the lines of a table;
each test then looks at one line of it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

SWATCHRC = Path(__file__).resolve().parent.parent / "swatchrc.example"

RECORDER = """#!{perl}
# one line a call: the arguments and standard input, in hex
my $stdin = "";
if (@ARGV and $ARGV[-1] eq "-") {{ local $/; binmode STDIN; $stdin = <STDIN>; }}
open my $records, ">>", $ENV{{RECORDS}} or die;
print $records unpack("H*", join "\\0", @ARGV), " ", unpack("H*", $stdin), "\\n";
"""

# ---- the lines: what alerts, and what looks much like it and must not ----

CLASSIC = "Nov 23 14:03:22 web1 "
ISO = "2026-11-23T14:03:22.123456+01:00 web1 "
STAMPS = {
    "classic": CLASSIC,
    "ISO": ISO,
}
OTHER_STAMPS = {
    "a day of one digit": "Nov  3 14:03:22 web1 ",
    "ISO without a fraction, in UTC": "2026-11-23T14:03:22Z web1.example.net ",
    "journalctl's short-iso": "2026-11-23T14:03:22+0100 web1 ",
    "journalctl's short-precise": "Nov 23 14:03:22.123456 web1 ",
    "journalctl's short-full": "Mon 2026-11-23 14:03:22 CET web1 ",
    "a priority before a classic time": "<34>Nov 23 14:03:22 web1 ",
    "a priority before an ISO time": "<34>2026-11-23T14:03:22.123456+01:00 web1 ",
    "an IPv6 address as the host": "Nov 23 14:03:22 2001:db8::17 ",
}

# Behind a syslog header, which each line gets in both forms.
ALERTS = {
    "snort through syslog": "snort[2841]: [1:2019401:3] ET POLICY Vulnerable Java Version"
    " [Classification: Potential Corporate Privacy Violation] [Priority: 1] {TCP}"
    " 198.51.100.25:52341 -> 10.0.0.2:80",
    "snort with its colon after the priority": "snort[32640]: [1:1893:4] SNMP missing community"
    " string attempt [Classification: Misc Attack] [Priority: 1]: {UDP} 192.0.2.4:23210 ->"
    " 10.0.0.2:161",
    "suricata through syslog": "suricata[1834]: [1:2024897:2] ET USER_AGENTS Go HTTP Client"
    " [Classification: Attempted Administrator Privilege Gain] [Priority: 1] {TCP}"
    " 198.51.100.25:52341 -> 10.0.0.2:80",
    "an alert handed on by barnyard": "barnyard2: [1:2003:8] SQL Worm propagation attempt"
    " [Classification: Misc Attack] [Priority: 1] {UDP} 192.0.2.4:1028 -> 10.0.0.2:1434",
    "a SYN flood": "kernel: [16508.733356] TCP: request_sock_TCP: Possible SYN flooding on port 80."
    " Sending cookies.  Check SNMP counters.",
    "a SYN flood on a newer kernel": "kernel: TCP: request_sock_TCPv6: Possible SYN flooding on"
    " port [::]:443. Sending cookies.",
    "a SYN flood on an old kernel": "kernel: [16508.7] possible SYN flooding on port 4671. Sending"
    " cookies.",
    "a full connection table": "kernel: [96243.1] nf_conntrack: nf_conntrack: table full, dropping"
    " packet",
    "a flood of ssh connections": "sshd[620]: error: beginning MaxStartups throttling",
    "root logged in by password": "sshd[811]: Accepted password for root from 198.51.100.7 port"
    " 40022 ssh2",
    "root logged in by key": "sshd-session[1893]: Accepted publickey for root from 198.51.100.7"
    " port 40022 ssh2: ED25519 SHA256:9uTxG8hCkR",
    "root logged in by PAM": "sshd[811]: Accepted keyboard-interactive/pam for root from"
    " 2001:db8::7 port 40022 ssh2",
    "a root login refused": "sshd[811]: ROOT LOGIN REFUSED FROM 198.51.100.7 port 40022",
    "too many tries": "sshd[811]: error: maximum authentication attempts exceeded for root from"
    " 198.51.100.7 port 40022 ssh2 [preauth]",
    "too many tries on a newer sshd": "sshd-session[811]: error: maximum authentication attempts"
    " exceeded for invalid user admin from 198.51.100.7 port 40022 ssh2 [preauth]",
    "a possible break-in": "sshd[24200]: reverse mapping checking getaddrinfo for"
    " ns.example.com [173.234.31.186] failed - POSSIBLE BREAK-IN ATTEMPT!",
    "a possible break-in on a newer sshd": "sshd-session[24200]: reverse mapping checking"
    " getaddrinfo for ns.example.com [173.234.31.186] failed.",
    "an address that does not map back": "sshd[24200]: Address 123.16.30.186 maps to"
    " static.example.vn, but this does not map back to the address - POSSIBLE BREAK-IN ATTEMPT!",
    "a nasty PTR record": 'sshd[24200]: Nasty PTR record "192.0.2.9" is set up for 192.0.2.8,'
    " ignoring",
    "root at the console": "login[812]: ROOT LOGIN  on '/dev/tty1'",
    "a wrong sudo password": "sudo: pam_unix(sudo:auth): authentication failure; logname=alice"
    " uid=1000 euid=0 tty=/dev/pts/0 ruser=alice rhost=  user=alice",
    "a wrong sudo password by sssd": "sudo[2211]: pam_sss(sudo-i:auth): authentication failure;"
    " logname=alice uid=1000 euid=0 tty=/dev/pts/0 ruser=alice rhost= user=alice",
    "three wrong sudo passwords": "sudo:    alice : 3 incorrect password attempts ; TTY=pts/0 ;"
    " PWD=/home/alice ; USER=root ; COMMAND=/bin/bash",
    "one wrong sudo password": "sudo[2211]:    alice : 1 incorrect password attempt ; TTY=pts/0 ;"
    " PWD=/home/alice ; USER=root ; COMMAND=/bin/bash",
    "a user not in sudoers": "sudo[1744]:  mallory : user NOT in sudoers ; TTY=pts/0 ;"
    " PWD=/home/mallory ; USER=root ; COMMAND=/usr/sbin/groupadd data",
    "a user of a directory not in sudoers": "sudo: CORP\\mallory smith : user NOT in sudoers ;"
    " TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh",
    "a user not authorized on this host": "sudo:  mallory : user NOT authorized on host ; TTY=pts/0"
    " ; PWD=/ ; USER=root ; COMMAND=/bin/sh",
    "a command sudo does not allow": "sudo:  mallory : command not allowed ; TTY=pts/0 ; PWD=/ ;"
    " USER=root ; COMMAND=/bin/sh",
    "a failed su": "su[9504]: FAILED SU (to root) www-data on pts/0",
    "a failed su of the shadow suite": "su[9504]: FAILED su for root by www-data",
    "a wrong su password": "su[9504]: pam_unix(su:auth): authentication failure; logname= uid=33"
    " euid=0 tty=pts/0 ruser=www-data rhost=  user=root",
    "a wrong su - password": "su: pam_unix(su-l:auth): authentication failure; logname= uid=998"
    " euid=998 tty=/dev/pts/1 ruser=tomcat rhost=  user=james",
    "an su outside the wheel group": "su[9504]: pam_wheel(su-l:auth): Access denied to 'dev1' for"
    " 'root'",
    "an ARP flip flop": "arpwatch: flip flop 192.168.1.1 00:50:56:a1:b2:c3 (00:0c:29:87:65:43)"
    " eth0",
    "a changed Ethernet address": "arpwatch[733]: changed ethernet address 192.168.1.1"
    " 00:50:56:a1:b2:c3 (00:0c:29:87:65:43) eth0",
    "an Ethernet mismatch": "arpwatch: ethernet mismatch 192.168.1.1 00:50:56:a1:b2:c3"
    " (00:0c:29:87:65:43) eth0",
    "a DNS rebind": "dnsmasq[1525]: possible DNS-rebind attack detected: evil.example.com",
    "unwanted DNS answers": "unbound: [1299:0] warning: unwanted reply total reached threshold"
    " (10000000) you may be under attack. defensive action: clearing the cache",
    "a DNS answer without its signature": "named[1285]:   validating @0x7f8bf0040910: com SOA: got"
    " insecure response; parent indicates it should be secure",
    "a segfault": "kernel: [55175.576870] nginx[1740126]: segfault at 0 ip 00007f41465edcc8 sp"
    " 00007ffda4c17f46 error 4 in nginx[55d0c0a00000+f2000]",
    "a segfault in the journal": "kernel: php-fpm8.2[4242]: segfault at 7ffc5f7fefe8 ip"
    " 0000561c2ac5b7e5 sp 00007ffc5f7feff0 error 6 in php-fpm8.2[561c2a800000+3f2000]",
    "a general protection fault": "kernel: [1.5] traps: mysqld[999] general protection fault"
    " ip:7f2c sp:7ffe error:0 in libc.so.6[7f2c+155000]",
    "an invalid opcode": "kernel: traps: mysqld[999] trap invalid opcode ip:7f2c sp:7ffe error:0 in"
    " libc.so.6[7f2c+155000]",
    "a dumped core": "systemd-coredump[1235]: [🡕] Process 1234 (nginx) of user 33 dumped core.",
    "an Apache segfault through syslog": "apache2[465]: [core:notice] [pid 465:tid 465] AH00052:"
    " child pid 474 exit signal Segmentation fault (11)",
    "an httpd segfault through syslog": "httpd[465]: [core:notice] [pid 465:tid 465] AH00052:"
    " child pid 475 exit signal Segmentation fault (11)",
    "an nginx crash through syslog": "nginx: 2026/11/23 14:03:22 [alert] 123#123: worker process"
    " 456 exited on signal 11",
    "a php-fpm crash through syslog": "php-fpm[700]: [WARNING] [pool www] child 712 exited on"
    " signal 11 (SIGSEGV) after 12.300000 seconds from start",
    **{
        f"a php-fpm child's signal {number}": f"php-fpm8.2[700]: [WARNING] [pool www] child 712"
        f" exited on signal {number} ({name} - core dumped) after 12.300000 seconds from start"
        for number, name in ((4, "SIGILL"), (6, "SIGABRT"), (7, "SIGBUS"), (8, "SIGFPE"))
    },
    "a failed service": "systemd[1]: nginx.service: Failed with result 'exit-code'.",
    "a failed service on an older systemd": "systemd[1]: Unit nginx.service entered failed state.",
    "a failed service on an old systemd": "systemd[1]: nginx.service: Unit entered failed state.",
    "a kernel panic": "kernel: [3.1] Kernel panic - not syncing: VFS: Unable to mount root fs on"
    " unknown-block(0,0)",
    "a kernel bug": "kernel: [3.1] kernel BUG at fs/ext4/inode.c:2721!",
    "a kernel oops": "kernel: BUG: unable to handle page fault for address: ffffbc53c0000000",
    "an oops line": "kernel: [5241.3] Oops: 0000 [#1] SMP",
    "a soft lockup": "kernel: watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [kworker/1:2:88]",
    "a hard lockup": "kernel: NMI watchdog: Watchdog detected hard LOCKUP on cpu 0",
    "a hung task": "kernel: INFO: task jbd2/sda1-8:312 blocked for more than 120 seconds.",
    "a machine check": "kernel: mce: [Hardware Error]: Machine check events logged",
    "an uncorrectable memory error": "kernel: EDAC MC0: 1 UE memory read error on CPU_SrcID#0",
    "an OOM kill": "kernel: [1.1] Out of memory: Killed process 1234 (mysqld) total-vm:8123456kB,"
    " anon-rss:7123456kB, file-rss:0kB, shmem-rss:0kB, UID:27 pgtables:15000kB oom_score_adj:0",
    "an OOM kill on an old kernel": "kernel: Out of memory: Kill process 1234 (java) score 900 or"
    " sacrifice child",
    "an OOM kill in a container": "kernel: Memory cgroup out of memory: Killed process 1234 (java)"
    " total-vm:8123456kB, anon-rss:7123456kB, file-rss:0kB",
    "a kill by systemd-oomd": "systemd-oomd[581]: Killed /user.slice/user-1000.slice/x.scope due to"
    " memory pressure for /user.slice being 86.80% > 50.00% for > 20s with reclaim activity",
    "a disk's I/O error": "kernel: [40688.1] blk_update_request: I/O error, dev sda, sector 2048 op"
    " 0x0:(READ) flags 0x0 phys_seg 1 prio class 0",
    "a buffer I/O error": "kernel: Buffer I/O error on dev sda1, logical block 1, lost async page"
    " write",
    "a medium error": "kernel: critical medium error, dev nvme0n1, sector 123 op 0x0:(READ)",
    "an NVMe command's I/O error": "kernel: nvme0n1: I/O Cmd(0x2) @ LBA 123, 8 blocks, I/O Error"
    " (sct 0x2 / sc 0x81)",
    "an ext4 error": "kernel: EXT4-fs error (device dm-17): ext4_journal_check_start:87: comm"
    " mosquitto: Detected aborted journal",
    "ext4 errors of the past": "kernel: EXT4-fs (sda1): error count since last fsck: 3",
    "an aborted journal": "kernel: [849.07] Aborting journal on device sdb7-8.",
    "a file system gone read-only": "kernel: [849.1] EXT4-fs (sdb7): Remounting filesystem"
    " read-only",
    "a file system going read-only": "kernel: EXT4-fs error (device nvme0n1p2) in"
    " ext4_reserve_inode_write: remounting filesystem read-only",
    "a FAT gone read-only": "kernel: FAT-fs (sdb1): Filesystem has been set read-only",
    "a Btrfs gone read-only": "kernel: BTRFS info (device sda1): forced readonly",
    "an XFS corruption": "kernel: [33.4] XFS (loop1): Corruption detected. Unmount and run"
    " xfs_repair",
    "an XFS metadata corruption": "kernel: XFS (sda4): Metadata corruption detected at"
    " xfs_dinode_verify.part.0+0x739/0x920 [xfs], inode 0x427b2d1",
    "an XFS metadata I/O error": 'kernel: XFS (sda4): metadata I/O error in "xfs_buf_ioend+0x2a"'
    " at daddr 0x1 len 8 error 5",
    "an XFS internal error": "kernel: XFS (dm-0): Internal error xfs_trans_cancel at line 1097 of"
    " file fs/xfs/xfs_trans.c.",
    "an XFS shut down": "kernel: XFS (sda4): Filesystem has been shut down due to log error (0x2).",
    "an XFS forced shut down": "kernel: XFS (sda4): xfs_do_force_shutdown(0x2) called from line"
    " 1211 of file fs/xfs/xfs_log.c.",
    "a Btrfs error": "kernel: BTRFS error (device sdb3): bad tree block start, want 952483840 have"
    " 0",
    "a Btrfs transaction error": "kernel: BTRFS: error (device sda2) in"
    " btrfs_commit_transaction:2418: errno=-5 IO failure",
    "a Btrfs corruption": "kernel: BTRFS critical (device sdc3): corrupt leaf: root=7 slot=0",
    "a Btrfs checksum failure": "kernel: BTRFS warning (device sda1): csum failed root 5 ino 257"
    " off 0 csum 0x98f94189 expected csum 0x00000000 mirror 1",
    "a SATA exception": "kernel: ata1.00: exception Emask 0x0 SAct 0x0 SErr 0x0 action 0x6 frozen",
    "a failed SATA command": "kernel: [7.7] ata1.00: failed command: READ FPDMA QUEUED",
    "an NVMe time-out": "kernel: nvme nvme0: I/O 123 QID 4 timeout, aborting",
    "an NVMe time-out on a newer kernel": "kernel: nvme nvme0: I/O tag 123 (107b) opcode 0x2 (I/O"
    " Cmd) QID 4 timeout, aborting req_op:READ(0) size:4096",
    "an NVMe controller down": "kernel: nvme nvme0: controller is down; will reset:"
    " CSTS=0xffffffff, PCI_STATUS=0x10",
    "an NVMe drive not ready": "kernel: nvme nvme0: Device not ready; aborting reset, CSTS=0x1",
    "an NVMe drive removed": "kernel: nvme nvme0: Removing after probe failure status: -19",
    "an NVMe drive disabled": "kernel: nvme nvme0: Disabling device after reset failure: -19",
    "a RAID disk failure": "kernel: md/raid1:md0: Disk failure on sdb1, disabling device.",
    "a failed array member": "mdadm[1298]: Fail event detected on md device /dev/md0, component"
    " device /dev/sdc2",
    "a failed spare": "mdadm[1298]: FailSpare event detected on md device /dev/md0, component"
    " device /dev/sdc2",
    "a degraded array": "mdadm: DegradedArray event detected on md device /dev/md0",
    "unreadable sectors": "smartd[1586]: Device: /dev/sdb [SAT], 16 Currently unreadable (pending)"
    " sectors",
    "uncorrectable sectors": "smartd[1586]: Device: /dev/sdb [SAT], 1 Offline uncorrectable"
    " sectors",
    "a disk that failed its self-check": "smartd[733]: Device: /dev/sdd [SAT], FAILED SMART"
    " self-check. BACK UP DATA NOW!",
    "an attribute below its limit": "smartd[733]: Device: /dev/sdd [SAT], Failed SMART usage"
    " Attribute: 5 Reallocated_Sector_Ct.",
    "an NVMe drive's warning": "smartd[733]: Device: /dev/nvme0, Critical Warning (0x04):"
    " Reliability",
    "growing disk errors": "smartd[733]: Device: /dev/sdd [SAT], ATA error count increased from 0"
    " to 2",
    "a test line by logger": "arpwatch: flip flop, a test",
}

QUIET = {
    "snort with a lower priority": "snort[2841]: [1:469:3] ICMP PING NMAP [Classification:"
    " Attempted Information Leak] [Priority: 2] {ICMP} 192.0.2.4 -> 10.0.0.2",
    "snort with priority 10": "snort[2841]: [1:469:3] ICMP PING NMAP [Priority: 10] {ICMP}"
    " 192.0.2.4 -> 10.0.0.2",
    "TCP's ordinary words": "kernel: [1.0] TCP: established hash table entries: 65536 (order: 7)",
    "the connection table being set up": "kernel: nf_conntrack version 0.5.0 (65536 buckets)",
    "a dropped connection": "sshd[620]: drop connection #10 from [198.51.100.7]:46482 on"
    " [10.0.0.2]:22 past MaxStartups",
    "an ordinary login": "sshd[811]: Accepted publickey for alice from 198.51.100.7 port 40022"
    " ssh2: ED25519 SHA256:9uTxG8hCkR",
    "a user whose name begins with root": "sshd[811]: Accepted password for rooter from"
    " 198.51.100.7 port 40022 ssh2",
    "a failed password": "sshd[811]: Failed password for root from 198.51.100.7 port 40022 ssh2",
    "an invalid user": "sshd-session[811]: Invalid user admin from 198.51.100.7 port 40022",
    "a URL about root logins": 'haproxy[99]: 198.51.100.7:40022 "GET /?q=sshd[1]:+Accepted password'
    ' for root from HTTP/1.1"',
    "an ordinary console login": "login[812]: LOGIN ON tty1 BY alice",
    "an ordinary sudo": "sudo:    alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ;"
    " COMMAND=/bin/ls",
    "a sudo command that speaks of failures": "sudo:    alice : TTY=pts/0 ; PWD=/home/alice ;"
    " USER=root ; COMMAND=/bin/echo bob : 3 incorrect password attempts ; user NOT in sudoers ;",
    "a sudo session": "sudo: pam_unix(sudo:session): session opened for user root(uid=0) by"
    " alice(uid=1000)",
    "a failed cron login": "CRON[77]: pam_unix(cron:auth): authentication failure; user=alice",
    "an ordinary su": "su[9504]: (to root) alice on pts/0",
    "an su session": "su[9504]: pam_unix(su-l:session): session opened for user root by alice",
    "a new station": "arpwatch: new station 192.168.1.102 6c:40:08:9a:bc:de eth0",
    "an ordinary DNS query": "dnsmasq[1525]: query[A] possible.DNS-rebind.attack from 192.168.1.9",
    "unbound's start": "unbound: [1299:0] info: start of service (unbound 1.17.1).",
    "named's ordinary words": "named[1285]: client @0x7f 192.0.2.1#53 (example.com): query"
    " (cache) 'example.com/A/IN' denied",
    "a trap of a debugger": "kernel: traps: chrome[999] trap int3 ip:55d0 sp:7ffe error:0 in"
    " chrome[55d0+7a000]",
    "a core dump's start": "systemd[1]: Started Process Core Dump (PID 1234/UID 0).",
    "an Apache start through syslog": "apache2[465]: [mpm_event:notice] [pid 465:tid 465] AH00489:"
    " Apache/2.4.57 (Debian) configured -- resuming normal operations",
    "a php-fpm child told to stop": "php-fpm[700]: [WARNING] [pool www] child 712 exited on signal"
    " 15 (SIGTERM) after 12.300000 seconds from start",
    "a started service": "systemd[1]: Started nginx.service - A high performance web server.",
    "a service that ended well": "systemd[1]: logrotate.service: Deactivated successfully.",
    "a user's own service": "systemd[1234]: app.service: Failed with result 'exit-code'.",
    "a kernel that tells how it boots": "kernel: Command line: BOOT_IMAGE=/vmlinuz panic=30"
    " oops=panic",
    "the watchdog being set up": "kernel: NMI watchdog: Enabled. Permanently consumes one hw-PMU"
    " counter.",
    "a corrected memory error": "kernel: EDAC MC0: 1 CE memory read error on CPU_SrcID#0",
    "an OOM killer that is set up": "systemd[1]: Started systemd-oomd.service - Userspace"
    " Out-Of-Memory (OOM) Killer.",
    "systemd-oomd's ordinary words": "systemd-oomd[581]: No swap; memory pressure usage will be"
    " degraded",
    "a floppy drive without a disk": "kernel: blk_update_request: I/O error, dev fd0, sector 0 op"
    " 0x0:(READ) flags 0x0 phys_seg 1 prio class 0",
    "a CD drive without a disc": "kernel: Buffer I/O error on dev sr0, logical block 0, async page"
    " read",
    "an ordinary ext4 mount": "kernel: EXT4-fs (sda1): mounted filesystem with ordered data mode."
    " Opts: errors=remount-ro",
    "an ordinary XFS mount": "kernel: XFS (sda1): Ending clean mount",
    "an XFS unmount": "kernel: XFS (sda1): Unmounting Filesystem",
    "an ordinary Btrfs mount": "kernel: BTRFS info (device sda1): disk space caching is enabled",
    "a SATA link": "kernel: ata1: SATA link up 6.0 Gbps (SStatus 133 SControl 300)",
    "an NVMe start": "kernel: nvme nvme0: Shutdown timeout set to 8 seconds",
    "a RAID start": "kernel: md/raid1:md0: active with 2 out of 2 mirrors",
    "a RAID rebuilt": "mdadm[1194]: RebuildFinished event detected on md device /dev/md127",
    "a disk's temperature": "smartd[733]: Device: /dev/sda [SAT], SMART Usage Attribute: 194"
    " Temperature_Celsius changed from 64 to 65",
    "a cron job": "CRON[2211]: (root) CMD (command -v debian-sa1 > /dev/null && debian-sa1 1 1)",
}

# Logs with a form of their own.
OWN_FORM_ALERTS = {
    "snort's fast.log": "11/23-14:03:22.123456  [**] [1:2019401:3] ET POLICY Vulnerable Java"
    " Version [**] [Classification: Potential Corporate Privacy Violation] [Priority: 1] {TCP}"
    " 198.51.100.25:52341 -> 10.0.0.2:80",
    "suricata's fast.log": "11/23/2026-14:03:22.123456  [wDrop] [**] [1:2024897:2] ET USER_AGENTS"
    " Go HTTP Client [**] [Classification: Attempted Administrator Privilege Gain] [Priority: 1]"
    " {TCP} 198.51.100.25:52341 -> 10.0.0.2:80",
    "snort 3's fast.log": '11/23-14:03:22.123456 [**] [1:1000001:1] "a rule of ours" [**]'
    " [Priority: 1] {TCP} 198.51.100.25:52341 -> 10.0.0.2:80",
    "snort's alert_full": "[Classification: Attempted Administrator Privilege Gain] [Priority: 1] ",
    "Apache's error.log": "[Mon Mar 09 09:33:41.657477 2026] [core:notice] [pid 465:tid 465]"
    " AH00052: child pid 474 exit signal Segmentation fault (11)",
    "Apache's error.log of old": "[Wed Mar 05 21:36:56 2014] [notice] child pid 22630 exit signal"
    " Segmentation fault (11)",
    "Apache's error.log with a core": "[Mon Mar 09 09:33:41.657477 2026] [core:notice] [pid 465:tid"
    " 465] AH00051: child pid 474 exit signal Aborted (6), possible coredump in /etc/apache2",
    "nginx's error.log": "2026/11/23 14:03:22 [alert] 123#123: worker process 456 exited on signal"
    " 11 (core dumped)",
    "php-fpm's log": "[23-Nov-2026 14:03:22] WARNING: [pool www] child 712 exited on signal 11"
    " (SIGSEGV - core dumped) after 10.753537 seconds from start",
}

OWN_FORM_QUIET = {
    "fast.log with a lower priority": "11/23-14:03:22.123456  [**] [1:469:3] ICMP PING NMAP [**]"
    " [Classification: Attempted Information Leak] [Priority: 2] {ICMP} 192.0.2.4 -> 10.0.0.2",
    "alert_full with a lower priority": "[Classification: Misc activity] [Priority: 3] ",
    "a URL like a snort alert": '198.51.100.7 - - [23/Nov/2026:14:03:22 +0100] "GET'
    ' /?[1:2:3]%20[Priority: 1] HTTP/1.1" 404 153 "-" "-"',
    "a URL like an Apache crash": "[Mon Mar 09 09:33:41.657477 2026] [php:notice] [pid 465:tid 465]"
    " [client 198.51.100.7:40022] child pid 474 exit signal Segmentation fault (11)",
    "an Apache request error": "[Mon Mar 09 09:33:41.657477 2026] [core:info] [pid 465:tid 465]"
    " [client 198.51.100.7:40022] AH00128: File does not exist: /srv/child pid 1 exit signal 11",
    "an nginx worker that ended": "2026/11/23 14:03:22 [notice] 123#123: worker process 456 exited"
    " with code 0",
    "a URL like an nginx crash": "2026/11/23 14:03:22 [error] 123#123: *1 open() failed, request:"
    ' "GET /[alert] 1#1: worker process 1 exited on signal 11 HTTP/1.1"',
    "a php-fpm child told to stop": "[23-Nov-2026 14:03:22] WARNING: [pool www] child 712 exited on"
    " signal 15 (SIGTERM) after 10.753537 seconds from start",
}

# The log of bird_sentinel itself: whatever a report says, it does not alert.
OWN_REPORTS = {
    "a delivery": "bird_sentinel[4711]: delivered 3 alerts to oncall",
    "a report without a process id": "bird_sentinel: queue moved aside",
    "a report that would match": "bird_sentinel[4711]: kernel: Kernel panic - not syncing",
}

# Content that speaks of bird_sentinel, in lines that alert.
MENTIONS = {
    "a login by that name": "sshd[811]: error: maximum authentication attempts exceeded for invalid"
    " user bird_sentinel from 198.51.100.7 port 40022 ssh2 [preauth]",
    "a login by the name of its tag": "sshd[811]: error: maximum authentication attempts exceeded"
    " for invalid user bird_sentinel[1]: from 198.51.100.7 port 40022 ssh2 [preauth]",
    "a login by the name of its whole line": "sshd[811]: error: maximum authentication attempts"
    " exceeded for invalid user Nov 23 14:03:22 web1 bird_sentinel[1]: delivered from 192.0.2.7"
    " port 40022 ssh2 [preauth]",
    "a login by the name of its ISO line": "sshd[811]: error: maximum authentication attempts"
    " exceeded for invalid user 2026-11-23T14:03:22+01:00 web1 bird_sentinel[1]: delivered from"
    " 192.0.2.7 port 40022 ssh2 [preauth]",
    "a URL with it": "snort[2841]: [1:2:3] GET /bird_sentinel: HTTP/1.1 [Priority: 1] {TCP}"
    " 192.0.2.7:1 -> 10.0.0.2:80",
    "a crash of it": "kernel: bird_sentinel[99]: segfault at 0 ip 00007f41465edcc8 sp 00007ffd"
    " error 4 in python3.11[400000+2b000]",
    "its service failed": "systemd[1]: bird_sentinel.service: Failed with result 'exit-code'.",
    "its memory ran out": "kernel: Out of memory: Killed process 99 (bird_sentinel) total-vm:1kB",
}

# Lines of no known program that a careless ignore would take for ours.
LOOKS_LIKE_OURS = {
    "no host, and a program that quotes us": "Nov 23 14:03:22 snort: bird_sentinel: x",
    "no host, and an ISO time": "2026-11-23T14:03:22+01:00 app: bird_sentinel[1]: x",
    "another program's name": "Nov 23 14:03:22 web1 bird_sentinel2[1]: x",
    "a name that begins otherwise": "Nov 23 14:03:22 web1 not_bird_sentinel[1]: x",
    "no time": "bird_sentinel[1]: x",
    "our line in an application's log": "login failed: Nov 23 14:03:22 web1 bird_sentinel[1]: x",
    "our line in brackets": "[2026-11-23T14:03:22+01:00 web1 bird_sentinel[1]: x",
    "a host only": "web1 bird_sentinel[1]: x",
}

# The text of each alert as a stranger can put it into other programs' lines.
OTHER_PROGRAMS = {
    "as a user's name": "sshd[811]: Invalid user {} from 198.51.100.7 port 40022",
    "as a URL": 'haproxy[99]: 198.51.100.7:40022 [23/Nov/2026] "GET /{} HTTP/1.1"',
    "as a user's name, with a time": f"sshd[811]: Invalid user {CLASSIC}{{}} from 198.51.100.7",
}
IMITATIONS = {
    f"{name} {where}": program.format(line)
    for name, line in {**ALERTS, **OWN_FORM_ALERTS}.items()
    for where, program in OTHER_PROGRAMS.items()
}
IN_APACHE_LOGS = {
    f"{name} {where}": log.format(line)
    for name, line in ALERTS.items()
    for where, log in {
        "as a URL in access.log": '198.51.100.7 - - [23/Nov/2026:14:03:22 +0100] "GET /{}" 404 153',
        "in error.log": "[Mon Mar 09 09:33:41.657477 2026] [php:notice] [pid 465:tid 465]"
        " [client 198.51.100.7:40022] {}",
    }.items()
}


def stamped(lines: dict[str, str], stamps: dict[str, str] = STAMPS) -> dict[str, bytes]:
    return {
        f"{name}, {stamp_name}": f"{stamp}{line}".encode()
        for name, line in lines.items()
        for stamp_name, stamp in stamps.items()
    }


def encoded(lines: dict[str, str]) -> dict[str, bytes]:
    return {name: line.encode() for name, line in lines.items()}


EVERY_STAMP = {**STAMPS, **OTHER_STAMPS}
ONE_OF_EACH_STAMP = stamped({"a SYN flood": ALERTS["a SYN flood"]}, OTHER_STAMPS)
MUST_ALERT = {**stamped(ALERTS), **encoded(OWN_FORM_ALERTS), **ONE_OF_EACH_STAMP}
MUST_NOT_ALERT = {**stamped(QUIET), **encoded(OWN_FORM_QUIET)}
IMITATES_AN_ALERT = {**stamped(IMITATIONS), **encoded(IN_APACHE_LOGS)}
NOT_OURS = encoded(LOOKS_LIKE_OURS)
MUST_BE_IGNORED = stamped(OWN_REPORTS, EVERY_STAMP)
MUST_ALERT_ALL_THE_SAME = stamped(MENTIONS, EVERY_STAMP)

# ---- hostile text ----

SHELL_TRICKS = {
    "a command substitution": b"$(touch pwned)",
    "backticks": b"`touch pwned`",
    "a semicolon": b"; touch pwned ;",
    "a pipe": b"| touch pwned",
    "an ampersand": b"& touch pwned & && touch pwned",
    "a redirection": b"> pwned >> pwned < /dev/null 2>&1",
    "one double quote": b'"',
    "one single quote": b"'",
    "quotes closed and a command": b"\"; touch pwned; \" '; touch pwned; '",
    "quotes of every kind": "\" ' ` “ ” ‘ ’ « » ″".encode(),
    "a glob": b"* ? [a-z]* /* ~ ~root {a,b}",
    "a comment sign": b"x # y #z",
    "an exclamation mark": b"!! !-1 !$",
    "a single backslash": b"\\",
    "backslashes": b'\\\\ \\" \\n \\$ \\0 \\',
    "percent signs": b"%s %n %d %% %00 %(x)s",
    "the variable itself": b'$SWATCH_LINE ${SWATCH_LINE} "\\$SWATCH_LINE"',
    "shell variables": b"$IFS ${IFS} $HOME $$ $? $@ $* $0 $1 ${PATH:0:1}",
    "perl variables": b"@{[ `touch pwned` ]} ${\\ `touch pwned`} $_ @ARGV %ENV $ENV{HOME} @INC",
    "perl code": b"'); system('touch pwned'); (' . `touch pwned` . ",
    "spaces": b"  a   b    c  ",
    "a tab": b"a\tb\t\tc",
    "a carriage return": b"a\rb",
    "invalid UTF-8": b"\xff\xfe \xc3( \x80 \xe2\x82 \xf8\x88\x80\x80\x80 \xed\xa0\x80",
    "UTF-8": "žluťoučký кит 🐦 \u202e\u2066 e\u0301".encode(),
    "ANSI and OSC sequences": b"\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b31m \x08\x08",
    "every byte but NUL and newline": bytes(b for b in range(256) if b not in (0, 10)),
    "an option": b"--to evil",
    "all options": b"--config /etc/passwd --dry-run --no-wait --to evil --version -h -- -",
}
DASHES = {
    "a dash": b"- ",
    "two dashes": b"-- ",
    "an option": b"--to evil ",
    "an option with a value": b"--config=/dev/null ",
    "a letter option": b"-h ",
}


def in_an_sshd_line(text: bytes) -> bytes:
    return (
        CLASSIC.encode()
        + b"sshd[811]: error: maximum authentication attempts exceeded for invalid user "
        + text
        + b" from 198.51.100.7 port 40022 ssh2 [preauth]"
    )


HOSTILE = {
    **{f"{name} in a line": in_an_sshd_line(text) for name, text in SHELL_TRICKS.items()},
    **{f"{name} as the whole line": text + b" HOSTILE" for name, text in SHELL_TRICKS.items()},
    **{f"{name} at the start": text + b"HOSTILE" for name, text in DASHES.items()},
    **{f"{name} at the end": b"HOSTILE " + text for name, text in DASHES.items()},
}
WITH_NUL = {
    "a NUL": in_an_sshd_line(b"a\0b\0\0c"),
    "a NUL at the start": b"\0HOSTILE",
    "a NUL and then the payload": b"harmless\0$(touch pwned) HOSTILE",
}
CUT = 50_000  # bytes of a line that the exec form passes on
LONG = {
    "just short enough": b"HOSTILE" + b"x" * (CUT - 7),
    "128 KiB": b"HOSTILE" + b"x" * (128 * 1024 - 7),
    "128 KiB with the variable's name": b"HOSTILE" + b"x" * (128 * 1024 - len("SWATCH_LINE=") - 8),
    "1 MiB": in_an_sshd_line(b"y" * 1024 * 1024),
    "1 MiB of quotes": in_an_sshd_line(b"\"'`" * (1024 * 1024 // 3)),
    "1 MiB of UTF-8": b"HOSTILE" + "€".encode() * (1024 * 1024 // 3),
    "1 MiB of NUL": b"HOSTILE" + b"\0" * 1024 * 1024 + b"end",
    "1 MiB of almost a sudo failure": CLASSIC.encode()
    + b"sudo:"
    + b" : 1 incorrect password attempt" * (1024 * 1024 // 31)
    + b" HOSTILE",
    "1 MiB of almost an alert": CLASSIC.encode()
    + b"snort: "
    + b"[1:2:3] kernel: I/O error on dev sr0 [" * (1024 * 1024 // 38)
    + b" HOSTILE",
}
ALL_HOSTILE = {**HOSTILE, **WITH_NUL, **LONG}

# ---- running swatchdog ----


class Alert(NamedTuple):
    arguments: list[bytes]
    stdin: bytes


class Swatch:
    """A directory of its own, with a home, a PATH that begins with the recorder, a place to run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.records = directory / "records"
        self.bin = directory / "bin"
        for name in ("bin", "home", "cwd", "scripts"):
            (directory / name).mkdir(parents=True)
        perl = shutil.which("perl")
        assert perl, "swatchdog is written in perl, and there is none"
        self.command("bird_sentinel", RECORDER.format(perl=perl))
        self.environment = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(directory / "home"),
            "RECORDS": str(self.records),
            "LC_ALL": "C",
        }

    def command(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def config(self, text: str | None = None) -> Path:
        path = self.directory / "swatchrc"
        path.write_text(SWATCHRC.read_text() if text is None else text)
        return path

    def log(self, lines: list[bytes], name: str = "log") -> Path:
        path = self.directory / name
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    @contextmanager
    def running(self, config: Path, *source: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run swatchdog in a session of its own; afterwards nothing of it is left."""
        with (self.directory / "output").open("wb") as output:
            process = subprocess.Popen(
                [
                    "swatchdog",
                    f"--config-file={config}",
                    f"--script-dir={self.directory / 'scripts'}",
                    *source,
                ],
                cwd=self.directory / "cwd",
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def run(self, config: Path, *source: str) -> list[Alert]:
        """Run swatchdog to the end of its source and return what it called bird_sentinel with."""
        with self.running(config, *source) as process:
            status = process.wait(timeout=60)
            self.ended_well(process, status)
        return self.alerts()

    def ended_well(self, process: subprocess.Popen[bytes], status: int) -> None:
        assert (self.directory / "output").read_bytes() == b"", "swatchdog complained"
        assert status == 0
        no_process_left(process.pid)
        for name in ("home", "cwd", "scripts"):
            assert os.listdir(self.directory / name) == [], f"a file was left in {name}"

    def alerts(self) -> list[Alert]:
        if not self.records.exists():
            return []
        alerts = []
        for record in self.records.read_text().splitlines():
            arguments, stdin = record.split(" ")
            alerts.append(Alert(bytes.fromhex(arguments).split(b"\0"), bytes.fromhex(stdin)))
        return alerts

    def wait_for_alert(self, line: bytes) -> None:
        deadline = time.monotonic() + 20
        while [b"send", b"--no-wait", b"--", line] not in [a.arguments for a in self.alerts()]:
            assert time.monotonic() < deadline, f"no alert of {line!r}: {self.alerts()}"
            time.sleep(0.02)


def no_process_left(group: int) -> None:
    deadline = time.monotonic() + 5
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        assert time.monotonic() < deadline, "swatchdog left a process behind"
        time.sleep(0.02)


def shipped() -> str:
    return SWATCHRC.read_text()


def action() -> str:
    """The one action line the shipped file uses."""
    actions = {line.strip() for line in shipped().splitlines() if line.startswith(" ")}
    assert len(actions) == 1
    return actions.pop()


def with_pipe() -> str:
    """The shipped file with the pipe line that its comment offers in place of each exec line."""
    offered = re.findall(r"^# +(pipe .*)$", shipped(), re.MULTILINE)
    assert offered == ['pipe "bird_sentinel send --no-wait -"']
    return shipped().replace(action(), offered[0])


def with_catch_all(config: str) -> str:
    """A pattern an administrator might add, so that lines of any form reach the action."""
    last = config.rstrip().splitlines()[-1]
    return f"{config}\nwatchfor /HOSTILE/\n{last}\n"


@pytest.fixture
def swatch(tmp_path: Path) -> Swatch:
    return Swatch(tmp_path / "swatch")


@pytest.fixture(scope="module")
def alerted(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The lines that alerted, of all the tables above, read by one run of the shipped file."""
    swatch = Swatch(tmp_path_factory.mktemp("tables") / "swatch")
    tables = (
        MUST_ALERT,
        MUST_NOT_ALERT,
        IMITATES_AN_ALERT,
        MUST_ALERT_ALL_THE_SAME,
    )
    lines = [line for table in tables for line in table.values()]
    assert len(set(lines)) == len(lines), "a line stands twice in the tables"
    alerts = swatch.run(swatch.config(), f"--examine={swatch.log(lines)}")
    for alert in alerts:
        assert alert.arguments[:-1] == [b"send", b"--no-wait", b"--"]
    return [alert.arguments[-1] for alert in alerts]


@pytest.fixture(scope="module")
def alerted_by_all(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The lines that the ignore left over, for a pattern that matches all."""
    swatch = Swatch(tmp_path_factory.mktemp("all") / "swatch")
    config = swatch.config(f"{shipped()}\nwatchfor /./\n    {action()}\n")
    lines = [*MUST_BE_IGNORED.values(), *MUST_ALERT_ALL_THE_SAME.values(), *NOT_OURS.values()]
    return [a.arguments[-1] for a in swatch.run(config, f"--examine={swatch.log(lines)}")]


@pytest.fixture(scope="module")
def by_exec(tmp_path_factory: pytest.TempPathFactory) -> dict[bytes, Alert]:
    """What the exec form called bird_sentinel with, by hostile line."""
    return hostile_run(Swatch(tmp_path_factory.mktemp("exec") / "swatch"), shipped())


@pytest.fixture(scope="module")
def by_pipe(tmp_path_factory: pytest.TempPathFactory) -> dict[bytes, Alert]:
    """The same for the pipe form."""
    return hostile_run(Swatch(tmp_path_factory.mktemp("pipe") / "swatch"), with_pipe())


def hostile_run(swatch: Swatch, config: str) -> dict[bytes, Alert]:
    lines = list(ALL_HOSTILE.values())
    source = f"--examine={swatch.log(lines)}"
    alerts = swatch.run(swatch.config(with_catch_all(config)), source)
    assert len(alerts) == len(lines), "an alert was lost, or one too many ran"
    return dict(zip(lines, alerts))


def sentences(table: dict[str, bytes]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("line", table.values(), ids=table.keys())


# ---- the patterns ----


@sentences(MUST_ALERT)
def test_alerts_once_with_the_exact_line(alerted: list[bytes], line: bytes) -> None:
    assert alerted.count(line) == 1


@sentences(MUST_NOT_ALERT)
def test_does_not_alert(alerted: list[bytes], line: bytes) -> None:
    assert line not in alerted


def test_another_programs_line_that_imitates_an_alert_does_not_alert(alerted: list[bytes]) -> None:
    fooled = {name for name, line in IMITATES_AN_ALERT.items() if line in alerted}
    assert fooled == set()


@sentences(MUST_BE_IGNORED)
def test_our_own_report_alerts_by_no_pattern(alerted_by_all: list[bytes], line: bytes) -> None:
    assert line not in alerted_by_all


@sentences(MUST_ALERT_ALL_THE_SAME)
def test_a_line_that_mentions_bird_sentinel_alerts(alerted: list[bytes], line: bytes) -> None:
    assert alerted.count(line) == 1


@sentences({**MUST_ALERT_ALL_THE_SAME, **NOT_OURS})
def test_a_line_that_is_not_ours_is_not_ignored(alerted_by_all: list[bytes], line: bytes) -> None:
    assert alerted_by_all.count(line) == 1


def test_each_shipped_pattern_is_reached_by_a_line_of_the_tables(swatch: Swatch) -> None:
    numbers = iter(range(1000))
    pattern_count = shipped().count("\nwatchfor ")
    numbered = re.sub(
        re.escape(action()), lambda _: f"exec 'bird_sentinel {next(numbers)}'", shipped()
    )
    alerts = swatch.run(
        swatch.config(numbered), f"--examine={swatch.log(list(MUST_ALERT.values()))}"
    )
    reached = {int(alert.arguments[0]) for alert in alerts}
    assert reached == set(range(pattern_count))


# ---- the file ----


def test_the_file_sets_the_line_once_and_before_anything_that_matches() -> None:
    settings = [line for line in shipped().splitlines() if line and line[0] not in "# "]
    assert settings[0].startswith("perlcode 1 ($ENV{SWATCH_LINE} = ")
    assert shipped().count("$ENV{SWATCH_LINE}") == 1
    keywords = [line.split()[0] for line in settings]
    assert keywords[:4] == ["perlcode"] * 3 + ["ignore"]
    assert set(keywords[4:]) == {"watchfor"}


def test_each_pattern_says_what_it_catches_and_has_the_one_action() -> None:
    lines = shipped().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("watchfor"):
            assert lines[number - 1].startswith("# "), line
            assert lines[number + 1] == f"    {action()}", line
    assert action() == """exec 'bird_sentinel send --no-wait -- "\\$SWATCH_LINE"'"""


def test_no_pattern_drops_or_throttles_lines() -> None:
    assert not re.search(r"^\s*(threshold|throttle|continue|quit)\b", shipped(), re.MULTILINE)


# ---- hostile text ----


@sentences(HOSTILE)
def test_exec_passes_on_the_exact_line_and_nothing_else(
    by_exec: dict[bytes, Alert], line: bytes
) -> None:
    assert by_exec[line] == Alert([b"send", b"--no-wait", b"--", line], b"")


@sentences(WITH_NUL)
def test_exec_passes_on_all_but_the_nul(by_exec: dict[bytes, Alert], line: bytes) -> None:
    assert by_exec[line].arguments == [b"send", b"--no-wait", b"--", line.replace(b"\0", b"")]


@sentences(LONG)
def test_exec_passes_on_the_beginning_of_a_long_line(
    by_exec: dict[bytes, Alert], line: bytes
) -> None:
    expected = line[:CUT].replace(b"\0", b"")
    assert by_exec[line].arguments == [b"send", b"--no-wait", b"--", expected]


@sentences(ALL_HOSTILE)
def test_pipe_passes_on_the_exact_line_and_nothing_else(
    by_pipe: dict[bytes, Alert], line: bytes
) -> None:
    assert by_pipe[line] == Alert([b"send", b"--no-wait", b"-"], line)


def test_exec_survives_the_smallest_limit_on_arguments(swatch: Swatch) -> None:
    # Linux allows a quarter of the stack limit, and 128 KiB at the least.
    swatchdog = shutil.which("swatchdog")
    swatch.command("swatchdog", f'#!/bin/sh\nulimit -s 256\nexec {swatchdog} "$@"\n')
    swatch.environment["PADDING"] = "p" * 16_000
    line = LONG["1 MiB"]
    alerts = swatch.run(swatch.config(), f"--examine={swatch.log([line])}")
    assert [alert.arguments[-1] for alert in alerts] == [line[:CUT]]


@pytest.mark.parametrize("form", [shipped, with_pipe], ids=["exec", "pipe"])
def test_a_bird_sentinel_that_ends_at_once_does_not_take_swatch_with_it(
    swatch: Swatch, form: Callable[[], str]
) -> None:
    swatch.command("bird_sentinel", '#!/bin/sh\necho "00 " >> "$RECORDS"\nexit 2\n')
    lines = [in_an_sshd_line(b"x" * 200_000)] * 5
    assert len(swatch.run(swatch.config(form()), f"--examine={swatch.log(lines)}")) == 5


# ---- where lines come from ----


def test_lines_appended_to_log_files_alert_and_a_rotated_log_is_followed(swatch: Swatch) -> None:
    source = re.findall(r"^# .*--tail-file='([^']*)'", shipped(), re.MULTILINE)
    assert source == ["/var/log/syslog /var/log/auth.log"]
    syslog, auth = swatch.log([], "syslog"), swatch.log([], "auth.log")
    alert, quiet = list(MUST_ALERT.values()), list(MUST_NOT_ALERT.values())

    def append(path: Path, *lines: bytes) -> None:
        with path.open("ab") as log:
            log.write(b"".join(line + b"\n" for line in lines))

    def append_until_seen(path: Path, line: bytes) -> None:
        # tail reads from the end of the file as it is when it starts, or starts to follow it
        deadline = time.monotonic() + 20
        while line not in [a.arguments[-1] for a in swatch.alerts()]:
            assert time.monotonic() < deadline, f"no alert of {line!r}"
            append(path, line)
            time.sleep(0.1)

    with swatch.running(swatch.config(), f"--tail-file={syslog} {auth}") as process:
        append_until_seen(syslog, alert[0])
        append(syslog, quiet[0], alert[1], quiet[1])
        append(auth, quiet[2], alert[2])
        swatch.wait_for_alert(alert[1])
        swatch.wait_for_alert(alert[2])
        syslog.rename(swatch.directory / "syslog.1")
        swatch.log([alert[3]], "syslog")
        swatch.wait_for_alert(alert[3])
        process.send_signal(signal.SIGTERM)
        status = process.wait(timeout=10)
        output = (swatch.directory / "output").read_text()
        assert status == 0
        no_process_left(process.pid)
    complaints = [
        line for line in output.splitlines() if line and not re.match(r"\S*tail: |Caught a", line)
    ]
    assert complaints == []
    seen = [a.arguments[-1] for a in swatch.alerts() if a.arguments[-1] != alert[0]]
    assert sorted(seen) == sorted(alert[1:4])


def test_the_journalctl_command_of_the_comment_feeds_the_file(swatch: Swatch) -> None:
    commands = re.findall(r"^# .*--read-pipe='([^']*)'", shipped(), re.MULTILINE)
    assert commands == ["journalctl -f -n 0 -a"]
    alert, quiet = list(MUST_ALERT.values())[:10], list(MUST_NOT_ALERT.values())[:10]
    swatch.environment["JOURNAL"] = str(swatch.log(alert + quiet))
    swatch.command("journalctl", '#!/bin/sh\n[ "$*" = "-f -n 0 -a" ] && exec cat "$JOURNAL"\n')
    alerts = swatch.run(swatch.config(), f"--read-pipe={commands[0]}")
    assert [a.arguments[-1] for a in alerts] == alert
