//! From the words of ssh, sshd, sudo and our own scripts to findings: a pure table.
//!
//! In: what was said. Out: a finding whose evidence is those words. Never: a guess from an exit code when
//! there are words, or words thrown away because no row fits.

use model::{Finding, FindingCode};

/// Any of these texts means this code; the first row that fits counts. The texts are those of OpenSSH
/// 7.4 to 9.9 (sshconnect.c, sshconnect2.c, packet.c, mux.c, misc.c, readconf.c), of strerror(3) in
/// glibc, and of sudo.
const ROWS: &[(FindingCode, &[&str])] = &[
    (
        FindingCode::SshHostKeyChanged,
        &[
            "REMOTE HOST IDENTIFICATION HAS CHANGED",
            "POSSIBLE DNS SPOOFING DETECTED",
            "is revoked",
        ],
    ),
    (
        FindingCode::SshHostKeyUnknown,
        &[
            "host key is known for",
            "Host key verification failed",
            "certificate host is not in the list",
        ],
    ),
    (
        FindingCode::SshConfigInvalid,
        &[
            "Bad configuration option",
            "bad configuration option",
            "Bad owner or permissions",
            "keyword requires",
            "Missing argument",
            "missing argument",
            "garbage at end of line",
            "extra arguments at end of line",
            "Can't open user config file",
            "hostname contains invalid characters",
            "remote username contains invalid characters",
            "too long for Unix domain socket",
        ],
    ),
    (
        FindingCode::SshNameUnknown,
        &["Could not resolve hostname", "Name or service not known"],
    ),
    (
        FindingCode::SshNoCommonCipher,
        &["Unable to negotiate", "no matching"],
    ),
    (
        FindingCode::SshAuthRefused,
        &[
            "Permission denied (",
            "Too many authentication failures",
            "Authentication failed",
            "No more authentication methods",
        ],
    ),
    (
        FindingCode::SshSessionsExhausted,
        &[
            "Session open refused by peer",
            "session request failed",
            "administratively prohibited",
            "no more sessions",
        ],
    ),
    (FindingCode::SshPortClosed, &["Connection refused"]),
    (
        FindingCode::SshNoRoute,
        &[
            "No route to host",
            "Network is unreachable",
            "Host is unreachable",
        ],
    ),
    (
        FindingCode::SshTimeout,
        &["timed out", "Timeout, server", "no login in"],
    ),
    (
        FindingCode::AgentNoSpace,
        &["No space left on device", "Disk quota exceeded"],
    ),
    (FindingCode::AgentDamaged, &["fleetflame: upload:"]),
    (FindingCode::AgentNoFolder, &["fleetflame: folder:"]),
    (
        FindingCode::AgentNotStarted,
        &["fleetflame: start:", "fleetflame: tools:"],
    ),
    (FindingCode::AgentNoSudo, &["fleetflame: sudo:"]),
    (
        FindingCode::AgentGone,
        &[
            "joining the agent",
            "entering the folder",
            "/agent: not found",
            "/agent: No such file or directory",
            "/agent: Permission denied",
        ],
    ),
    (
        FindingCode::SshNoShell,
        &[
            "This account is currently not available",
            "sh: not found",
            "sh: command not found",
            "This service allows sftp connections only",
            "Could not chdir to home directory and shell",
        ],
    ),
    (
        FindingCode::SshClosed,
        &[
            "Connection closed by",
            "Connection reset by",
            "Connection to",
            "kex_exchange_identification",
            "closed by remote host",
            "Broken pipe",
            "Received disconnect",
            "Exceeded MaxStartups",
        ],
    ),
];

/// Lines that say nothing about a failure.
const CHATTER: &[&str] = &[
    "Warning: Permanently added",
    "@@@@@",
    "Control socket connect(",
    "debug1:",
];

/// The finding for what was said; `otherwise` when no row fits.
#[must_use]
pub fn diagnose(said: &str, otherwise: FindingCode) -> Finding {
    let words = words(said);
    let fits = |row: &&(FindingCode, &[&str])| row.1.iter().any(|text| words.contains(text));
    let code = ROWS.iter().find(fits).map_or(otherwise, |row| row.0);
    Finding::new(code, words)
}

/// What was said, on one line, without chatter.
fn words(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| {
        !line.is_empty() && !CHATTER.iter().any(|chatter| line.starts_with(chatter))
    });
    let joined = lines.collect::<Vec<_>>().join("; ");
    if joined.is_empty() {
        "nothing was said".to_owned()
    } else {
        joined
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the programs say, word for word (OpenSSH 9.2p1 and sudo 1.9.13p3 of Debian 12 unless noted).
    const SAID: &[(FindingCode, &str)] = &[
        (
            FindingCode::SshHostKeyUnknown,
            "No ED25519 host key is known for [10.77.0.2]:22 and you have requested strict checking.\r\nHost key verification failed.\r\n",
        ),
        (
            FindingCode::SshHostKeyUnknown,
            "Host key verification failed.\r\n",
        ),
        (
            FindingCode::SshHostKeyChanged,
            "@@@@@@@@@@@\r\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\n@@@@@@\r\nIT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\r\nHost key verification failed.\r\n",
        ),
        (
            FindingCode::SshAuthRefused,
            "deploy@10.77.0.2: Permission denied (publickey).\r\n",
        ),
        (
            FindingCode::SshAuthRefused,
            "Received disconnect from 10.77.0.2 port 22:2: Too many authentication failures\r\nDisconnected from 10.77.0.2 port 22\r\n",
        ),
        (
            FindingCode::SshPortClosed,
            "ssh: connect to host 10.77.0.2 port 22: Connection refused\r\n",
        ),
        (
            FindingCode::SshTimeout,
            "ssh: connect to host 10.77.0.2 port 22: Connection timed out\r\n",
        ),
        (
            FindingCode::SshTimeout,
            "Connection timed out during banner exchange\r\nConnection to 10.77.0.2 port 22 timed out\r\n",
        ),
        (
            FindingCode::SshNoRoute,
            "ssh: connect to host 10.99.0.2 port 22: Network is unreachable\r\n",
        ),
        (
            FindingCode::SshNameUnknown,
            "ssh: Could not resolve hostname kong-7: Name or service not known\r\n",
        ),
        (
            FindingCode::SshConfigInvalid,
            "/home/me/.ssh/config: line 3: Bad configuration option: hots\r\n/home/me/.ssh/config: terminating, 1 bad configuration options\r\n",
        ),
        (
            FindingCode::SshNoCommonCipher,
            "Unable to negotiate with 10.77.0.2 port 22: no matching host key type found. Their offer: ssh-rsa\r\n",
        ),
        (
            FindingCode::SshClosed,
            "kex_exchange_identification: read: Connection reset by peer\r\nConnection reset by 10.77.0.2 port 22\r\n",
        ),
        (
            FindingCode::SshClosed,
            "kex_exchange_identification: Connection closed by remote host\r\nConnection closed by 10.77.0.2 port 22\r\n",
        ),
        (
            FindingCode::SshSessionsExhausted,
            "mux_client_request_session: session request failed: Session open refused by peer\r\nkex_exchange_identification: Connection closed by remote host\r\nConnection closed by UNKNOWN port 65535\r\n",
        ),
        (
            FindingCode::SshNoShell,
            "This account is currently not available.\r\n",
        ),
        (
            FindingCode::AgentNoSudo,
            "fleetflame: sudo: sudo: a password is required\n",
        ),
        (
            FindingCode::AgentNoSpace,
            "fleetflame: upload: checksum and size are 1 2, not 3 4; gzip: stdout: No space left on device\n",
        ),
        (
            FindingCode::AgentDamaged,
            "fleetflame: upload: checksum and size are 1 2, not 3 4; gzip: stdin: unexpected end of file\n",
        ),
        (
            FindingCode::AgentNotStarted,
            "fleetflame: start: /x/agent: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found\n",
        ),
        (
            FindingCode::AgentNotStarted,
            "fleetflame: start: sh: 1: /x/agent: Exec format error\n",
        ),
        (
            FindingCode::AgentNoFolder,
            "fleetflame: folder: mkdir: cannot create directory '/run/x': Permission denied\n",
        ),
        (
            FindingCode::AgentGone,
            "fleetflame-agent: joining the agent: No such file or directory (os error 2)\n",
        ),
        (
            FindingCode::AgentGone,
            "sh: 1: /var/tmp/fleetflame-0/ab/agent: not found\n",
        ),
    ];

    #[test]
    fn every_row_is_told_by_the_programs_own_words() {
        for (code, said) in SAID {
            let finding = diagnose(said, FindingCode::SshNoAnswer);
            assert_eq!(finding.code, *code, "{said}");
        }
        for (code, _) in ROWS {
            assert!(SAID.iter().any(|s| s.0 == *code), "{code} has no recording");
        }
    }

    #[test]
    fn unknown_words_are_kept() {
        let said = "Warning: Permanently added 'a' (ED25519) to the list of known hosts.\nthe moon is full\n";
        let finding = diagnose(said, FindingCode::SshClosed);
        assert_eq!(finding.code, FindingCode::SshClosed);
        assert_eq!(finding.evidence, "the moon is full");
        assert_eq!(
            diagnose("", FindingCode::SshNoAnswer).evidence,
            "nothing was said"
        );
    }
}
