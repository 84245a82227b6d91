"""The shipped swatchrc.example, run by the real swatchdog.

A recorder stands in for bird_sentinel: first in PATH, it notes its arguments and, where the last of
them is "-", its standard input, byte for byte. Only the last tests run the installed command.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Callable, NamedTuple

import pytest
from conftest import PROJECT, Sentinel, until
from fake_x import FakeX

SHIPPED = (PROJECT / "swatchrc.example").read_text()
EXEC = """exec 'bird_sentinel send --no-wait -- "\\$SWATCH_LINE"'"""
PIPE = 'pipe "bird_sentinel send --no-wait -"'

RECORDER = """#!{perl}
# one line a call: the arguments and standard input, in hex
my $stdin = "";
if (@ARGV and $ARGV[-1] eq "-") {{ local $/; binmode STDIN; $stdin = <STDIN>; }}
open my $records, ">>", $ENV{{RECORDS}} or die;
print $records unpack("H*", join "\\0", @ARGV), " ", unpack("H*", $stdin), "\\n";
"""

# ---- the lines: what alerts, and what looks much like it and must not ----


def log(text: str) -> list[str]:
    """The lines of a log: a long one goes on in the next, which is indented further; # comments.

    They are real, but for names and addresses; an end that no pattern looks at is left out.
    """
    whole = re.sub(r"\n {8,}", " ", text)
    return [line for line in re.findall(r"^ {4}(.*)$", whole, re.MULTILINE) if line[0] != "#"]


# Behind a time and a host, as syslog and the journal write them.
ALERTS = log("""
    # intrusion detection
    snort[2841]: [1:2019401:3] ET POLICY Vulnerable Java Version [Priority: 1] {TCP}
    suricata[1834]: [1:2024897:2] ET USER_AGENTS Go HTTP Client [Classification: x] [Priority: 1]
    barnyard2: [1:2003:8] SQL Worm propagation [Classification: Misc Attack] [Priority: 1] {UDP}
    # floods
    kernel: [16508.733356] TCP: request_sock_TCP: Possible SYN flooding on port 80. Sending cookies.
    kernel: [16508.7] possible SYN flooding on port 4671. Sending cookies.
    kernel: [96243.1] nf_conntrack: nf_conntrack: table full, dropping packet
    sshd[620]: error: beginning MaxStartups throttling
    sshd[620]: drop connection #10 from [198.51.100.7]:46482 on [10.0.0.2]:22 Maxstartups
    # logins
    sshd[811]: Accepted password for root from 198.51.100.7 port 40022 ssh2
    sshd-session[1893]: Accepted publickey for root from 198.51.100.7 port 40022 ssh2: ED25519
    sshd-session[811]: ROOT LOGIN REFUSED FROM 198.51.100.7 port 40022
    sshd[811]: error: maximum authentication attempts exceeded for root from 198.51.100.7
    # the same up to OpenSSH 6.6, and in 6.7
    sshd[24200]: Disconnecting: Too many authentication failures for root [preauth]
    sshd[24200]: reverse mapping checking getaddrinfo for ns.example.com [173.234.31.186] failed
    sshd[24200]: Address 123.16.30.186 maps to static.example.vn, but this does not map back to the
    sshd[24200]: Nasty PTR record "192.0.2.9" is set up for 192.0.2.8, ignoring
    login[812]: ROOT LOGIN  on '/dev/tty1'
    login[812]: ROOT LOGIN ON tty1
    sudo: pam_unix(sudo:auth): authentication failure; logname=alice uid=1000 euid=0 tty=/dev/pts/0
    sudo[2211]: pam_sss(sudo-i:auth): authentication failure; logname=alice uid=1000 euid=0
    sudo-rs: pam_unix(sudo:auth): authentication failure; logname= uid=1000 euid=0 tty= ruser=alice
    sudo:    alice : 3 incorrect password attempts ; TTY=pts/0 ; PWD=/home/alice ; USER=root ;
    sudo[1744]:  mallory : user NOT in sudoers ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh
    sudo: CORP\\mallory smith : user NOT in sudoers ; PWD=/ ; USER=root ; COMMAND=/bin/sh
    sudo:  mallory : user NOT authorized on host ; PWD=/ ; USER=root ; COMMAND=/bin/sh
    sudo:  mallory : command not allowed ; PWD=/ ; USER=root ; COMMAND=/bin/cat /etc/shadow
    su[9504]: FAILED SU (to root) www-data on pts/0
    su[9504]: FAILED su for root by www-data
    su: BAD SU www-data to root on /dev/pts/0
    su[9504]: pam_unix(su:auth): authentication failure; logname= uid=33 euid=0 tty=pts/0
    su[9504]: pam_wheel(su-l:auth): Access denied to 'dev1' for 'root'
    # spoofing
    arpwatch: flip flop 192.168.1.1 00:50:56:a1:b2:c3 (00:0c:29:87:65:43) eth0
    arpwatch[733]: changed ethernet address 192.168.1.1 00:50:56:a1:b2:c3 (00:0c:29:87:65:43) eth0
    arpwatch: ethernet mismatch 192.168.1.1 00:50:56:a1:b2:c3 (00:0c:29:87:65:43) eth0
    arpwatch: flip flop, a test
    dnsmasq[1525]: possible DNS-rebind attack detected: evil.example.com
    unbound: [1299:0] warning: unwanted reply total reached threshold (10000000) you may be under
    named[1285]:   validating @0x7f8bf0040910: com SOA: got insecure response; parent indicates it
        should be secure
    # crashes
    kernel: [55175.576870] nginx[1740126]: segfault at 0 ip 00007f41465edcc8 sp 00007ffda4c17f46
    kernel: [1.5] traps: mysqld[999] general protection fault ip:7f2c sp:7ffe error:0 in libc.so.6
    kernel: traps: mysqld[999] trap invalid opcode ip:7f2c sp:7ffe error:0 in libc.so.6
    kernel: traps: mysqld[999] trap divide error ip:7f2c sp:7ffe error:0 in libc.so.6
    systemd-coredump[1235]: [🡕] Process 1234 (nginx) of user 33 dumped core.
    systemd-coredump[1235]: Process 1234 (nginx) of user 0 terminated abnormally without generating
        a coredump.
    apache2[465]: [core:notice] [pid 465:tid 465] AH00052: child pid 474 exit signal Segmentation
    httpd[465]: [notice] child pid 475 exit signal Segmentation fault (11)
    nginx: 2026/11/23 14:03:22 [alert] 123#123: worker process 456 exited on signal 11
    php-fpm[700]: [WARNING] [pool www] child 712 exited on signal 11 (SIGSEGV) after 12.3 seconds
    php-fpm8.2[700]: [23-Nov-2026 14:03:22] WARNING: [pool www] child 712 exited on signal 4 (SIGILL
    php-fpm8.2[700]: [WARNING] [pool www] child 712 exited on signal 6 (SIGABRT) after 12.3 seconds
    php-fpm8.2[700]: [WARNING] [pool www] child 712 exited on signal 8 (SIGFPE) after 12.3 seconds
    systemd[1]: nginx.service: Failed with result 'exit-code'.
    systemd[1]: nginx.service: Unit entered failed state.
    systemd: Unit kubelet.service entered failed state.
    kernel: [3.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)
    kernel: [3.1] kernel BUG at fs/ext4/inode.c:2721!
    kernel: BUG: unable to handle page fault for address: ffffbc53c0000000
    kernel: [5241.3] Unable to handle kernel NULL pointer dereference at virtual address 0000000008
    kernel: [5241.3] Oops: 0000 [#1] SMP
    kernel: watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [kworker/1:2:88]
    kernel: NMI watchdog: Watchdog detected hard LOCKUP on cpu 0
    kernel: rcu: INFO: rcu_preempt self-detected stall on CPU
    kernel: INFO: rcu_sched detected expedited stalls on CPUs/tasks: { 3-... } 22 jiffies s: 85
    kernel: INFO: task jbd2/sda1-8:312 blocked for more than 120 seconds.
    kernel: INFO: task dd:456 blocked in I/O wait for more than 122 seconds.
    kernel: mce: [Hardware Error]: Machine check events logged
    kernel: EDAC MC0: 1 UE memory read error on CPU_SrcID#0
    # memory
    kernel: [1.1] Out of memory: Killed process 1234 (mysqld) total-vm:8123456kB, anon-rss:7123456kB
    kernel: Memory cgroup out of memory: Killed process 1234 (java) total-vm:8123456kB
    systemd-oomd[581]: Killed /user.slice/user-1000.slice/x.scope due to memory pressure for
    # disks and file systems
    kernel: [40688.1] blk_update_request: I/O error, dev sda, sector 2048 op 0x0:(READ) flags 0x0
    kernel: Buffer I/O error on dev sda1, logical block 1, lost async page write
    kernel: critical medium error, dev nvme0n1, sector 123 op 0x0:(READ)
    kernel: nvme0n1: I/O Cmd(0x2) @ LBA 123, 8 blocks, I/O Error (sct 0x2 / sc 0x81)
    kernel: EXT4-fs error (device dm-17): ext4_journal_check_start:87: comm mosquitto: Detected
    kernel: EXT4-fs (sda1): error count since last fsck: 3
    kernel: [849.07] Aborting journal on device sdb7-8.
    kernel: [849.1] EXT4-fs (sdb7): Remounting filesystem read-only
    kernel: FAT-fs (sdb1): Filesystem has been set read-only
    kernel: BTRFS info (device sda1): forced readonly
    kernel: [33.4] XFS (loop1): Corruption detected. Unmount and run xfs_repair
    kernel: XFS (sda4): ondisk log corrupt, shutting down fs!
    kernel: XFS (dm-0): Internal error xfs_trans_cancel at line 1097 of file fs/xfs/xfs_trans.c.
    kernel: XFS (sda4): Filesystem has been shut down due to log error (0x2).
    kernel: XFS (sda4): xfs_do_force_shutdown(0x2) called from line 1211 of file fs/xfs/xfs_log.c.
    kernel: BTRFS error (device sdb3): bad tree block start, want 952483840 have 0
    kernel: BTRFS: error (device sda2) in btrfs_commit_transaction:2418: errno=-5 IO failure
    kernel: BTRFS critical (device sdc3): corrupt leaf: root=7 slot=0
    kernel: BTRFS warning (device sda1): csum failed root 5 ino 257 off 0 csum 0x98f94189
    kernel: ata3: exception Emask 0x10 SAct 0x0 SErr 0x4050000 action 0xe frozen
    kernel: [7.7] ata1.00: failed command: READ FPDMA QUEUED
    kernel: nvme nvme0: I/O tag 123 (107b) opcode 0x2 (I/O Cmd) QID 4 timeout, aborting req_op:READ
    kernel: nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0x10
    kernel: nvme nvme0: Device not ready; aborting reset, CSTS=0x1
    kernel: nvme nvme0: Removing after probe failure status: -19
    kernel: nvme nvme0: Disabling device after reset failure: -19
    kernel: md/raid1:md0: Disk failure on sdb1, disabling device.
    mdadm[1298]: Fail event detected on md device /dev/md0, component device /dev/sdc2
    mdadm[1298]: FailSpare event detected on md device /dev/md0, component device /dev/sdc2
    mdadm: DegradedArray event detected on md device /dev/md0
    smartd[1586]: Device: /dev/sdb [SAT], 16 Currently unreadable (pending) sectors (changed +8)
    smartd[1586]: Device: /dev/sdb [SAT], 16 Total unreadable (pending) sectors
    smartd[1586]: Device: /dev/sdb [SAT], 1 Total offline uncorrectable sectors
    smartd[733]: Device: /dev/sdd [SAT], FAILED SMART self-check. BACK UP DATA NOW!
    smartd[733]: Device: /dev/sdd [SAT], Failed SMART usage Attribute: 5 Reallocated_Sector_Ct.
    smartd[733]: Device: /dev/bus/0 [megaraid_disk_01], SMART Failure: DATA CHANNEL IMPENDING
    smartd[733]: Device: /dev/sdd [SAT], ATA error count increased from 0 to 2
    smartd[733]: Device: /dev/sdd [SAT], new Self-Test Log error at hour timestamp 4711
    smartd[733]: Device: /dev/nvme0, Critical Warning (0x04): Reliability
    # the logs themselves
    systemd-journald[558]: Suppressed 4678 messages from opensnoop.service
    journal: Suppressed 290762 messages from /system.slice/zabbix-server.service
    systemd-journald[363]: Missed 81 kernel messages
    systemd-journald[821]: Forwarding to syslog missed 138 messages.
    kernel: [203270.192700] systemd-journald[35206]: Failed to write entry (20 items, 704 bytes),
    rsyslogd-2177: imuxsock begins to drop messages from pid 2918 due to rate-limiting
    rsyslogd-2177: imuxsock lost 56 messages from pid 2918 due to rate-limiting
    rsyslogd: imuxsock[pid: 51, name: /usr/bin/syncd]: 48814808 messages lost due to rate-limiting
    rsyslogd: imjournal: 84667 messages lost due to rate-limiting
    rsyslogd: rsyslogd[internal_messages]: 561 messages lost due to rate-limiting (500 allowed
    rsyslogd: tcpsrv from <app>: begin to drop messages due to rate-limiting
    rsyslogd: omfwd from <app>: begin to drop messages due to rate-limiting
    rsyslogd[594]: action 'action-3-builtin:omfile' (module 'builtin:omfile') message lost, could
    kernel: [12555048.809330] audit: audit_lost=50409498 audit_rate_limit=0 audit_backlog_limit=8192
    kernel: audit: backlog limit exceeded
    auditd[560]: Audit daemon is suspending logging due to low disk space.
    auditd[560]: Audit daemon has no space left on logging partition
    auditd[812]: queue to plugins is full - dropping event
    audispd: queue is full - dropping event
    auditd[812]: dispatch err (pipe full) event lost
    kernel: net_ratelimit: 185 callbacks suppressed
    kernel: [ 5293.608397] __ratelimit: 7 callbacks suppressed
    kernel: printk: 1908 messages suppressed.
    kernel: printk: systemd: 19 output lines suppressed due to ratelimiting
    kernel: systemd-shutdow: 36 output lines suppressed due to ratelimiting
""")

QUIET = log("""
    # intrusion detection
    snort[2841]: [1:469:3] ICMP PING NMAP [Classification: Attempted Information Leak] [Priority: 2]
    snort[2841]: [1:469:3] ICMP PING NMAP [Priority: 10] {ICMP} 192.0.2.4 -> 10.0.0.2
    # floods
    kernel: [1.0] TCP: established hash table entries: 65536 (order: 7)
    kernel: nf_conntrack version 0.5.0 (65536 buckets)
    sshd[620]: drop connection #10 from [198.51.100.7]:46482 on [10.0.0.2]:22 past Maxstartups
    # logins
    sshd[811]: Accepted publickey for alice from 198.51.100.7 port 40022 ssh2: ED25519 SHA256:9uTxG8
    sshd[811]: Accepted password for rooter from 198.51.100.7 port 40022 ssh2
    sshd[811]: Failed password for root from 198.51.100.7 port 40022 ssh2
    # the second time that sshd says so
    sshd-session[811]: ROOT LOGIN REFUSED FROM 198.51.100.7 port 40022 [preauth]
    # what newer versions of sshd log behind "maximum authentication attempts exceeded"
    sshd[811]: Disconnecting: Too many authentication failures [preauth]
    sshd-session[811]: Disconnecting authenticating user root 198.51.100.7 port 40022: Too many
        authentication failures [preauth]
    sshd-session[811]: Disconnecting invalid user Too many authentication failures for 198.51.100.7
        port 40022: Too many authentication failures [preauth]
    login[812]: LOGIN ON tty1 BY alice
    login[812]: FAILED LOGIN (1) on '/dev/tty1' FOR 'ROOT LOGIN ', Authentication failure
    sudo:    alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/bin/ls
    sudo:    alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/bin/echo bob : 3 incorrect
        password attempts ; user NOT in sudoers ;
    sudo: pam_unix(sudo:session): session opened for user root(uid=0) by alice(uid=1000)
    CRON[77]: pam_unix(cron:auth): authentication failure; user=alice
    su[9504]: (to root) alice on pts/0
    su[9504]: pam_unix(su-l:session): session opened for user root by alice
    # spoofing
    arpwatch: new station 192.168.1.102 6c:40:08:9a:bc:de eth0
    dnsmasq[1525]: query[A] possible.DNS-rebind.attack from 192.168.1.9
    named[1285]: client @0x7f 192.0.2.1#53 (example.com): query (cache) 'example.com/A/IN' denied
    # crashes
    kernel: traps: chrome[999] trap int3 ip:55d0 sp:7ffe error:0 in chrome[55d0+7a000]
    systemd-coredump[1235]: Process 1234 (nginx) of user 33 terminated abnormally with signal
    systemd[1]: Started Process Core Dump (PID 1234/UID 0).
    apache2[465]: [mpm_event:notice] [pid 465:tid 465] AH00489: Apache/2.4.57 (Debian) configured
    php-fpm[700]: [WARNING] [pool www] child 712 exited on signal 15 (SIGTERM) after 12.3 seconds
    systemd[1]: Started nginx.service - A high performance web server.
    systemd[1234]: app.service: Failed with result 'exit-code'.
    kernel: Command line: BOOT_IMAGE=/vmlinuz panic=30 oops=panic softlockup_panic=1
    kernel: EDAC MC0: 1 CE memory read error on CPU_SrcID#0
    # memory
    systemd[1]: Started systemd-oomd.service - Userspace Out-Of-Memory (OOM) Killer.
    # disks and file systems
    kernel: blk_update_request: I/O error, dev fd0, sector 0 op 0x0:(READ) flags 0x0 phys_seg 1
    kernel: Buffer I/O error on dev sr0, logical block 0, async page read
    kernel: Buffer I/O error on device sr0, logical block 0
    kernel: critical medium error, dev sr0, sector 123 op 0x0:(READ)
    kernel: EXT4-fs (sda1): mounted filesystem with ordered data mode. Opts: errors=remount-ro
    kernel: XFS (sda1): Unmounting Filesystem
    kernel: ata1: SATA link up 6.0 Gbps (SStatus 133 SControl 300)
    kernel: md/raid1:md0: active with 2 out of 2 mirrors
    mdadm[1194]: RebuildFinished event detected on md device /dev/md127
    smartd[733]: Device: /dev/sda [SAT], SMART Usage Attribute: 194 Temperature_Celsius changed
    smartd[733]: Device: /dev/sdd [SAT], No more Currently unreadable (pending) sectors, warning
        condition reset after 1 email
    # the logs themselves
    systemd-journald[22]: Runtime Journal (/run/log/journal/ac2a3af98bbe) is 8.0M, max 158.7M
    rsyslogd[1146]: message too long (8453) with configured size 8192, begin of message is:
        imuxsock: 1 messages lost due to rate-limiting
    rsyslogd-2007: action 'action 17' suspended, next retry is Mon Nov 23 14:03:52 2026
    # which the kernel says just before it says what it lost
    kernel: audit: audit_backlog=65537 > audit_backlog_limit=65536
    kernel: audit: type=1302 audit(1593535531.190:2): item=0 name="audit_lost=1"
    auditd[560]: Audit daemon is low on disk space for logging
""")

# Whole lines: of logs with a form of their own, and of programs that syslog knows by an odd name.
OWN_FORM_ALERTS = log("""
    11/23-14:03:22.123456  [**] [1:2019401:3] ET POLICY Vulnerable Java Version [**]
        [Classification: Potential Corporate Privacy Violation] [Priority: 1] {TCP} 198.51.100.25
    11/23/2026-14:03:22.123456  [wDrop] [**] [1:2024897:2] ET USER_AGENTS Go HTTP Client [**]
        [Classification: Attempted Administrator Privilege Gain] [Priority: 1] {TCP} 198.51.100.25
    11/23-14:03:22.123456 [**] [1:1000001:1] "a rule of ours" [**] [Priority: 1] {TCP} 198.51.100.25
    [Classification: Attempted Administrator Privilege Gain] [Priority: 1]
    [Priority: 1]
    [Mon Mar 09 09:33:41.657477 2026] [core:notice] [pid 465:tid 465] AH00051: child pid 474 exit
        signal Aborted (6)
    [Wed Mar 05 21:36:56 2014] [notice] child pid 22630 exit signal Segmentation fault (11)
    2026/11/23 14:03:22 [alert] 123#123: worker process 456 exited on signal 11 (core dumped)
    [23-Nov-2026 14:03:22] WARNING: [pool www] child 712 exited on signal 11 (SIGSEGV - core dumped)
    Nov 23 14:03:22 web1  -- root[1144]: ROOT LOGIN ON tty1
""")

OWN_FORM_QUIET = log("""
    11/23-14:03:22.123456  [**] [1:469:3] ICMP PING NMAP [**] [Classification: Attempted Information
        Leak] [Priority: 2] {ICMP} 192.0.2.4 -> 10.0.0.2
    [Classification: Misc activity] [Priority: 3]
    198.51.100.7 - - [23/Nov/2026:14:03:22 +0100] "GET /?[1:2:3]%20[Priority: 1] HTTP/1.1" 404 153
    [Mon Mar 09 09:33:41.657477 2026] [core:info] [pid 465:tid 465] [client 198.51.100.7:40022]
        AH00128: File does not exist: /srv/child pid 1 exit signal 11
    2026/11/23 14:03:22 [error] 123#123: *1 open() failed, request: "GET /[alert] 1#1: worker
        process 1 exited on signal 11 HTTP/1.1"
    2026/11/23 14:03:22 [alert] 123#123: *1 open() "/x: worker process 1 exited on signal 11" failed
    [23-Nov-2026 14:03:22] WARNING: [pool www] child 712 exited on signal 15 (SIGTERM) after 10.7
    [23-Nov-2026 14:03:22] WARNING: [pool www] child 712 said into stderr: "WARNING: [pool www]
        child 1 exited on signal 11 "
    child pid 474 exit signal Segmentation fault (11)
    WARNING: [pool www] child 712 exited on signal 11 (SIGSEGV) after 10.753537 seconds from start
""")

# The log of bird_sentinel itself: whatever a report says, it does not alert.
OWN_REPORTS = log("""
    bird_sentinel[4711]: delivered 3 alerts to oncall
    bird_sentinel[4711]: kernel: Kernel panic - not syncing
""")

# Content that speaks of bird_sentinel, in lines that alert.
MENTIONS = log("""
    sshd[811]: error: maximum authentication attempts exceeded for invalid user bird_sentinel[1]:
        from 198.51.100.7 port 40022 ssh2 [preauth]
    sshd[811]: error: maximum authentication attempts exceeded for invalid user Nov 23 14:03:22 web1
        bird_sentinel[1]: delivered from 192.0.2.7 port 40022 ssh2 [preauth]
    sshd[811]: error: maximum authentication attempts exceeded for invalid user
        2026-11-23T14:03:22+01:00 web1 bird_sentinel[1]: delivered from 192.0.2.7 port 40022 ssh2
    sshd[811]: error: maximum authentication attempts exceeded for invalid user <38>1
        2026-11-23T14:03:22+01:00 web1 bird_sentinel 1 - - delivered from 192.0.2.7 port 40022 ssh2
    snort[2841]: [1:2:3] GET /bird_sentinel: HTTP/1.1 [Priority: 1] {TCP} 192.0.2.7:1 -> 10.0.0.2:80
    kernel: bird_sentinel[99]: segfault at 0 ip 00007f41465edcc8 sp 00007ffd error 4 in python3.11
    systemd[1]: bird_sentinel.service: Failed with result 'exit-code'.
""")

# Whole lines of no known program that a careless ignore would take for ours.
NOT_OURS = log("""
    # no host, and a program that quotes us
    Nov 23 14:03:22 snort: bird_sentinel: x
    2026-11-23T14:03:22+01:00 app: bird_sentinel[1]: x
    # a log of its own form
    2026-11-23 14:03:22,123 ERROR bird_sentinel[1]: x
    # another program
    Nov 23 14:03:22 web1 bird_sentinel2[1]: x
    Nov 23 14:03:22 web1 bird_sentinel-2[1]: x
    Nov 23 14:03:22 web1 bird_sentinel was restarted - x
    Nov 23 14:03:22 web1 other[1]: message repeated 2 times: [ bird_sentinel[1]: x]
    2026-11-23 14:03:22 web1 other bird_sentinel[1]: x
    <38>1 2026-11-23T14:03:22+01:00 web1 other 1 - - bird_sentinel[1]: x
    <38>1 2026-11-23T14:03:22+01:00 web1 other bird_sentinel 1 - x
    # no time, or not at the beginning
    bird_sentinel[1]: x
    login failed: Nov 23 14:03:22 web1 bird_sentinel[1]: x
    [2026-11-23T14:03:22+01:00 web1 bird_sentinel[1]: x
""")

CLASSIC = "Nov 23 14:03:22 web1 "
ISO = "2026-11-23T14:03:22.123456+01:00 web1 "
PLAIN_ISO = "2026-11-23 14:03:22 web1 "
STAMPS = [
    CLASSIC,
    ISO,
    PLAIN_ISO,
    "Nov  3 14:03:22 web1 ",
    "2026-11-23T14:03:22Z web1.example.net ",
    "Nov 23 14:03:22 2001:db8::17 ",
    # journalctl's short-iso, short-precise and short-full
    "2026-11-23T14:03:22+0100 web1 ",
    "Mon 2026-11-23 14:03:22 CET web1 ",
    # a plain date with a fraction, and a zone
    "2026-11-23 14:03:22.123456 web1 ",
    "2026-11-23 14:03:22.123 +0100 WEB ",
    # with syslog's priority
    "<34>Nov 23 14:03:22 web1 ",
]


def rfc5424(line: str, between: str = "- - ") -> str:
    """A line in RFC 5424, as rsyslog writes it: the message with the space before it."""
    program, _, message = line.partition(":")
    name, _, process = program.rstrip("]").partition("[")
    return f"<38>1 2026-11-23T03:10:00.4+01:00 web1 {name} {process or '-'} {between}{message}"


def rfc5424_in_full(line: str) -> str:
    """The same with all that it may have: a message id, structured data, a byte order mark."""
    data = '[timeQuality tzKnown="1" isSynced="1"][meta sequenceId="7"]'
    return rfc5424(line.replace(": ", ":", 1), f"ID47 {data} \ufeff")


def repeated(line: str) -> str:
    """A line as rsyslog writes it when it came again, its message with the space before it."""
    program, _, message = line.partition(":")
    return f"{program}: message repeated 2 times: [{message}]"


def repeated_from_the_journal(line: str) -> str:
    """The same where rsyslog reads the journal, which has the message without that space."""
    return repeated(line.replace(": ", ":", 1))


WAYS_TO_WRITE_A_LINE: dict[str, Callable[[str], str]] = {
    "classic": lambda line: CLASSIC + line,
    "ISO": lambda line: ISO + line,
    "plain ISO": lambda line: PLAIN_ISO + line,
    "RFC 5424": rfc5424,
    "RFC 5424 in full": rfc5424_in_full,
    "repeated": lambda line: CLASSIC + repeated(line),
    "repeated, from the journal": lambda line: ISO + repeated_from_the_journal(line),
    "repeated, RFC 5424": lambda line: rfc5424(repeated(line)),
}


# Where a stranger can put an alert's line, or its message, into another program's line.
ELSEWHERE = [
    # a program whose name begins as one of theirs does
    CLASSIC + "super[77]: {message}",
    CLASSIC + "sshd[811]: Invalid user {line} from 198.51.100.7 port 40022",
    CLASSIC + "sshd[811]: message repeated 2 times: [ Invalid user {line} from 198.51.100.7]",
    ISO + 'haproxy[99]: 198.51.100.7:40022 [23/Nov/2026] "GET /{line} HTTP/1.1"',
    # what looks like the words and the structured data of RFC 5424
    CLASSIC + "sshd[811]: 1 user - {message}",
    rfc5424("app[77]: {message}"),
    rfc5424("sshd[811]: Invalid user - - - {message}"),
    rfc5424("sshd[811]: Invalid user a] {message}", '- [meta x="y"] '),
    '198.51.100.7 - - [23/Nov/2026:14:03:22 +0100] "GET /{line}" 404 153',
    "[Mon Mar 09 09:33:41 2026] [php:notice] [pid 465:tid 465] [client 198.51.100.7:40022] {line}",
    # journalctl indents what follows in a message of several lines
    " " * len(CLASSIC) + CLASSIC + "{line}",
]

# ---- hostile text ----

SHELL_TRICKS = [
    b"$(touch pwned)", b"`touch pwned`", b"; touch pwned ;", b"| touch pwned",
    b"& touch pwned & && touch pwned", b"> pwned >> pwned < /dev/null 2>&1", b'"', b"'",
    b"\"; touch pwned; \" '; touch pwned; '", "\" ' ` “ ” ‘ ’ « » ″".encode(),
    b"\\", b'\\\\ \\" \\n \\$ \\0 \\', b"%s %n %d %% %00 %(x)s",
    b"$IFS ${IFS} $HOME $$ $? $@ $* $0 $1 ${PATH:0:1}",
    b"@{[ `touch pwned` ]} ${\\ `touch pwned`} $_ @ARGV %ENV $ENV{HOME} @INC",
    b"'); system('touch pwned'); (' . `touch pwned` . ",
    b"\xff\xfe \xc3( \x80 \xe2\x82 \xf8\x88\x80\x80\x80 \xed\xa0\x80",
    "žluťoučký кит 🐦 \u202e\u2066 e\u0301".encode(),
    b"\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b31m \x08\x08",
    bytes(b for b in range(256) if b not in (0, 10)),
    b"--config /etc/passwd --dry-run --no-wait --to evil --version -h -- -",
]  # fmt: skip
OPTIONS = [b"-", b"--", b"--to evil", b"--config=/dev/null", b"-h"]
KIB_128, MIB = 128 * 1024, 1024 * 1024
HOSTILE = [
    *(text + b" HOSTILE" for text in SHELL_TRICKS),
    *(b"HOSTILE " + text for text in OPTIONS),
    # a line of a shipped pattern, which matches without the HOSTILE that the others need
    CLASSIC.encode() + b"arpwatch: flip flop " + b" ".join(SHELL_TRICKS),
    b"\0HOSTILE",
    b"HOSTILE" + b"\0" * MIB + b"end",
    # as long as exec passes on, longer than Linux allows, and such that patterns have to search
    b"HOSTILE" + b"x" * (50_000 - 7),
    b"HOSTILE" + b"x" * (KIB_128 - len("SWATCH_LINE=") - 8),
    b"HOSTILE" + "€".encode() * (MIB // 3),
    rfc5424("sudo: HOSTILE", "- " + "[x]" * (MIB // 3)).encode(),
    rfc5424("sudo: HOSTILE", "- [" + "x" * MIB).encode(),
    CLASSIC.encode() + b"sudo:" + b" : 1 incorrect password attempt" * (MIB // 31) + b" HOSTILE",
    CLASSIC.encode() + b"snort: " + b"[1:2:3] kernel: I/O error on dev sr0 [" * (MIB // 38)
    + b" HOSTILE",
]  # fmt: skip


def as_exec_passes_on(line: bytes) -> bytes:
    return line[:50_000].replace(b"\0", b"")


# ---- running swatchdog ----


class Alert(NamedTuple):
    """How bird_sentinel was called."""

    arguments: list[bytes]
    stdin: bytes


class Swatch:
    """A directory of its own, with a PATH that begins with the recorder, and a place to run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.records = directory / "records"
        self.bin = directory / "bin"
        for name in ("bin", "home", "cwd", "scripts"):
            (directory / name).mkdir(parents=True)
        perl = shutil.which("perl")
        assert perl, "swatchdog is written in perl, and there is none"
        self.command("bird_sentinel", RECORDER.format(perl=perl))
        self.environment: Mapping[str, str] = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(directory / "home"),
            "RECORDS": str(self.records),
            "LC_ALL": "C",
        }

    def command(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def log(self, lines: list[bytes], name: str = "log") -> Path:
        path = self.directory / name
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    @contextmanager
    def running(self, source: str, config: str = SHIPPED) -> Iterator[subprocess.Popen[bytes]]:
        """Run swatchdog in a session of its own; afterwards nothing of it is left."""
        swatchrc = self.directory / "swatchrc"
        swatchrc.write_text(config)
        with (self.directory / "output").open("wb") as output:
            process = subprocess.Popen(
                ["swatchdog", f"--config-file={swatchrc}",
                 f"--script-dir={self.directory / 'scripts'}", source],
                cwd=self.directory / "cwd", env=self.environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=output,
            )  # fmt: skip
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def read(self, source: str, config: str = SHIPPED) -> list[Alert]:
        """Run swatchdog to the end of its source; what it called bird_sentinel with."""
        with self.running(source, config) as process:
            status = process.wait(timeout=60)
            until(lambda: gone(process.pid), 5, "swatchdog leaves no process behind")
        assert (self.directory / "output").read_bytes() == b"", "swatchdog complained"
        assert status == 0
        for name in ("cwd", "scripts"):
            assert os.listdir(self.directory / name) == [], f"a file was left in {name}"
        return self.alerts()

    def alerts(self) -> list[Alert]:
        records = self.records.read_text().splitlines() if self.records.exists() else []
        calls = [[bytes.fromhex(part) for part in record.split(" ")] for record in records]
        return [Alert(arguments.split(b"\0"), stdin) for arguments, stdin in calls]

    def alerted(self, lines: list[str], config: str = SHIPPED) -> list[str]:
        """The lines that set off the exec action, in order and as often as they did."""
        source = self.log([line.encode() for line in lines])
        alerts = self.read(f"--examine={source}", config)
        for alert in alerts:
            assert alert == ([b"send", b"--no-wait", b"--", alert.arguments[-1]], b"")
        return [alert.arguments[-1].decode() for alert in alerts]


def gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def with_catch_all(config: str, pattern: str) -> str:
    """A pattern that an administrator might add, so that lines of any form reach the action."""
    return f"{config}\nwatchfor /{pattern}/\n    {config.splitlines()[-1]}\n"


@pytest.fixture
def swatch(tmp_path: Path) -> Swatch:
    return Swatch(tmp_path / "swatch")


# ---- the patterns ----


@pytest.mark.parametrize("way", WAYS_TO_WRITE_A_LINE)
def test_a_line_that_matters_alerts_once_and_as_it_is(swatch: Swatch, way: str) -> None:
    lines = [WAYS_TO_WRITE_A_LINE[way](line) for line in ALERTS]
    assert swatch.alerted(lines) == lines


def test_a_line_that_matters_alerts_in_logs_with_a_form_of_their_own(swatch: Swatch) -> None:
    assert swatch.alerted(OWN_FORM_ALERTS) == OWN_FORM_ALERTS


def test_each_pattern_is_reached_by_one_of_these_lines(swatch: Swatch) -> None:
    numbers = itertools.count()
    numbered = re.sub(re.escape(EXEC), lambda _: f"exec 'bird_sentinel {next(numbers)}'", SHIPPED)
    lines = [CLASSIC + line for line in ALERTS] + OWN_FORM_ALERTS
    alerts = swatch.read(f"--examine={swatch.log([line.encode() for line in lines])}", numbered)
    reached = {int(alert.arguments[0]) for alert in alerts}
    assert sorted(reached) == list(range(SHIPPED.count("\nwatchfor ")))


def test_a_line_that_does_not_matter_does_not_alert(swatch: Swatch) -> None:
    lines = [write(line) for line in QUIET for write in WAYS_TO_WRITE_A_LINE.values()]
    assert swatch.alerted(lines + OWN_FORM_QUIET) == []


def test_another_programs_line_that_imitates_an_alert_does_not_alert(swatch: Swatch) -> None:
    lines = [
        place.replace("{line}", line).replace("{message}", line.partition(": ")[2])
        for place in ELSEWHERE
        for line in ALERTS + OWN_FORM_ALERTS
    ]
    assert swatch.alerted(lines) == []


def test_our_own_report_alerts_by_no_pattern(swatch: Swatch) -> None:
    ours = [stamp + line for stamp in STAMPS for line in OWN_REPORTS]
    ours += [write(line) for write in WAYS_TO_WRITE_A_LINE.values() for line in OWN_REPORTS]
    assert swatch.alerted(ours + NOT_OURS, with_catch_all(SHIPPED, ".")) == NOT_OURS


def test_a_line_that_mentions_bird_sentinel_alerts_whatever_its_time_looks_like(
    swatch: Swatch,
) -> None:
    lines = [stamp + line for stamp in STAMPS for line in MENTIONS]
    lines += [write(line) for write in WAYS_TO_WRITE_A_LINE.values() for line in MENTIONS]
    assert swatch.alerted(lines) == lines


# ---- the file ----


def test_the_file_sets_the_line_and_ignores_our_reports_before_it_watches() -> None:
    settings = [line for line in SHIPPED.splitlines() if line and line[0] not in "# "]
    assert settings[0].startswith("perlcode 1 ($ENV{SWATCH_LINE} = ")
    keywords = [line.split()[0] for line in settings]
    assert keywords[:5] == ["perlcode"] * 4 + ["ignore"]
    assert set(keywords[5:]) == {"watchfor"}


def test_the_file_offers_the_pipe_form_and_never_the_dangerous_ones() -> None:
    assert re.findall(r"^# +(pipe .*)$", SHIPPED, re.MULTILINE) == [PIPE]
    assert not re.search(r"(exec|pipe) .*\$[_\d]", SHIPPED)


# ---- hostile text ----


@pytest.mark.parametrize(
    ("action", "expected"),
    [(EXEC, lambda line: Alert([b"send", b"--no-wait", b"--", as_exec_passes_on(line)], b"")),
     (PIPE, lambda line: Alert([b"send", b"--no-wait", b"-"], line))],
    ids=["exec", "pipe"],
)  # fmt: skip
def test_a_hostile_line_is_passed_on_byte_for_byte_and_does_nothing_else(
    swatch: Swatch, action: str, expected: Callable[[bytes], Alert]
) -> None:
    config = with_catch_all(SHIPPED.replace(EXEC, action), "HOSTILE")
    alerts = swatch.read(f"--examine={swatch.log(HOSTILE)}", config)
    assert len(alerts) == len(HOSTILE), "an alert was lost, or one too many ran"
    assert [line[:80] for line, alert in zip(HOSTILE, alerts) if alert != expected(line)] == []


def test_exec_survives_the_smallest_limit_on_arguments(swatch: Swatch) -> None:
    # Linux allows a quarter of the stack limit, and 128 KiB at the least.
    swatchdog = shutil.which("swatchdog")
    swatch.command("swatchdog", f'#!/bin/sh\nulimit -s 256\nexec {swatchdog} "$@"\n')
    swatch.environment = {**swatch.environment, "PADDING": "p" * 16_000}
    line = CLASSIC + "arpwatch: flip flop " + "y" * MIB
    assert swatch.alerted([line]) == [line[:50_000]]


@pytest.mark.parametrize("action", [EXEC, PIPE], ids=["exec", "pipe"])
def test_a_bird_sentinel_that_ends_at_once_does_not_take_swatch_with_it(
    swatch: Swatch, action: str
) -> None:
    swatch.command("bird_sentinel", '#!/bin/sh\necho "00 " >> "$RECORDS"\nexit 2\n')
    source = swatch.log([CLASSIC.encode() + b"arpwatch: flip flop " + b"x" * 200_000] * 5)
    assert len(swatch.read(f"--examine={source}", SHIPPED.replace(EXEC, action))) == 5


# ---- where lines come from ----


def test_lines_appended_to_log_files_alert_and_a_rotated_log_is_followed(swatch: Swatch) -> None:
    source = re.findall(r"^# .*--tail-file='([^']*)'", SHIPPED, re.MULTILINE)
    assert source == ["/var/log/syslog /var/log/auth.log"]
    syslog, auth = swatch.log([], "syslog"), swatch.log([], "auth.log")
    alert, quiet = [[(CLASSIC + line).encode() for line in lines] for lines in (ALERTS, QUIET)]

    def append(path: Path, *lines: bytes) -> None:
        with path.open("ab") as file:
            file.write(b"".join(line + b"\n" for line in lines))

    def seen(line: bytes) -> bool:
        return line in [alert.arguments[-1] for alert in swatch.alerts()]

    def seen_by_now() -> bool:
        # tail reads from the end of the file as it is when it starts to follow it
        append(syslog, alert[0])
        return seen(alert[0])

    with swatch.running(f"--tail-file={syslog} {auth}") as process:
        until(seen_by_now, 20)
        append(syslog, quiet[0], alert[1], quiet[1])
        append(auth, quiet[2], alert[2])
        until(lambda: seen(alert[1]) and seen(alert[2]), 20)
        syslog.rename(swatch.directory / "syslog.1")
        swatch.log([alert[3]], "syslog")
        until(lambda: seen(alert[3]), 20)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
        until(lambda: gone(process.pid), 5, "swatchdog leaves no process behind")
    output = (swatch.directory / "output").read_text().splitlines()
    assert [line for line in output if line and not re.match(r"\S*tail: |Caught a", line)] == []
    lines = [a.arguments[-1] for a in swatch.alerts() if a.arguments[-1] != alert[0]]
    assert sorted(lines) == sorted(alert[1:4])


def test_the_journalctl_command_of_the_comment_feeds_the_file(swatch: Swatch) -> None:
    commands = re.findall(r"^# .*--read-pipe='([^']*)'", SHIPPED, re.MULTILINE)
    assert commands == ["journalctl -f -n 0 -a"]
    lines = [(ISO + line).encode() for line in (ALERTS[9], QUIET[9], ALERTS[10])]
    swatch.environment = {**swatch.environment, "JOURNAL": str(swatch.log(lines))}
    swatch.command("journalctl", '#!/bin/sh\n[ "$*" = "-f -n 0 -a" ] && exec cat "$JOURNAL"\n')
    alerts = swatch.read(f"--read-pipe={commands[0]}")
    assert [alert.arguments[-1] for alert in alerts] == [lines[0], lines[2]]


# ---- the installed command ----

# Each is a kind of its own, so that a digest quotes each; NUL, and what a DM cannot hold, go.
ON_THE_PHONE = {
    b"--to evil -h -- HOSTILE": "--to evil -h -- HOSTILE",
    b"""HOSTILE " ' ` and "; touch pwned; " '; touch pwned; '""": None,
    b"HOSTILE $(touch pwned) `touch pwned` ; touch pwned | touch pwned & touch pwned": None,
    b'HOSTILE \\\\ \\" \\n \\$SWATCH_LINE $HOME ${IFS} %s %(x)s * ? ~ # !! {a,b} \\': None,
    b"a NUL\0 and then $(touch pwned) and the end HOSTILE": (
        "a NUL and then $(touch pwned) and the end HOSTILE"
    ),
}


@pytest.fixture
def real(swatch: Swatch, sentinel: Sentinel) -> Swatch:
    """swatchdog with the installed command, authorized, in place of the recorder."""
    swatch.environment = sentinel.env
    return swatch


@pytest.mark.parametrize("action", [EXEC, PIPE], ids=["exec", "pipe"])
def test_a_hostile_line_is_on_the_phone_byte_for_byte(real: Swatch, x: FakeX, action: str) -> None:
    config = with_catch_all(SHIPPED.replace(EXEC, action), "HOSTILE")
    real.read(f"--examine={real.log(list(ON_THE_PHONE))}", config)
    expected = [text or line.decode() for line, text in ON_THE_PHONE.items()]

    def missing() -> list[str]:
        return [text for text in expected if not any(text in dm.text for dm in x.dms)]

    until(lambda: not missing(), 20, "not all of the lines are quoted")
