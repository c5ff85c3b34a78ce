//! Where ssh is to go, as its own command line says it: a name of ssh_config, or user, host and port.
//!
//! In: text from a person or an inventory. Out: a destination whose every character is known to be
//! harmless as an argument. Never: one that begins with a dash (ssh would take it for an option), or a
//! name that is resolved here.

use crate::ids::HostName;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest user and host; a name in the DNS has at most 253 characters.
const PART_MAX: usize = 253;

/// `[USER@]HOST` or `ssh://[USER@]HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Destination {
    user: Option<String>,
    host: String,
    port: Option<u16>,
}

/// Why a text is no destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no ssh destination: {why}")]
pub struct BadDestination {
    text: String,
    why: &'static str,
}

impl Destination {
    /// A destination from its parts.
    ///
    /// # Errors
    /// [`BadDestination`] when a part is empty, too long, or has a character that a shell or ssh could
    /// take for something else.
    pub fn new(user: Option<&str>, host: &str, port: Option<u16>) -> Result<Self, BadDestination> {
        let bad = |text: &str, why| BadDestination {
            text: text.chars().take(80).collect(),
            why,
        };
        let harmless = |text: &str, also: &[u8]| {
            !text.is_empty()
                && text.len() <= PART_MAX
                && !text.starts_with('-')
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || also.contains(&b))
        };
        if !harmless(host, b"._:%-") {
            let why = "a host is letters, digits, dots, dashes, underscores or an IPv6 address, and begins with no dash";
            return Err(bad(host, why));
        }
        if let Some(user) = user.filter(|user| !harmless(user, b"._@+=\\-")) {
            let why = "a user is letters, digits and . _ @ + = \\ -, and begins with no dash";
            return Err(bad(user, why));
        }
        if port == Some(0) {
            return Err(bad(host, "0 is no port"));
        }
        Ok(Self {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
        })
    }

    /// The user, if one was given; else ssh_config or ssh decides.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The host, or its alias in ssh_config.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, if one was given.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// A name for the run: the host's, with what cannot stand in a file name replaced.
    #[must_use]
    pub fn name(&self) -> HostName {
        let mut name: String = self
            .host
            .chars()
            .map(|c| if c == ':' || c == '%' { '-' } else { c })
            .take(100)
            .collect();
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            name.insert(0, 'h');
        }
        if let Some(port) = self.port {
            name.push_str(&format!("-{port}"));
        }
        HostName::new(name).unwrap_or_else(|_| HostName::fallback())
    }
}

impl FromStr for Destination {
    type Err = BadDestination;

    fn from_str(text: &str) -> Result<Self, BadDestination> {
        let uri = text.strip_prefix("ssh://");
        let rest = uri.unwrap_or(text);
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        if uri.is_none() {
            return Self::new(user, rest, None);
        }
        let bad = |why| BadDestination {
            text: text.chars().take(80).collect(),
            why,
        };
        let (host, port) = match rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').unwrap_or(port))),
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = match port {
            Some(port) => {
                let why = "a port is a number up to 65535, and an IPv6 address stands in brackets";
                Some(port.parse().map_err(|_| bad(why))?)
            }
            None => None,
        };
        Self::new(user, host, port)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self
            .user
            .as_ref()
            .map_or_else(String::new, |u| format!("{u}@"));
        match self.port {
            None => write!(f, "{user}{}", self.host),
            Some(port) if self.host.contains(':') => {
                write!(f, "ssh://{user}[{}]:{port}", self.host)
            }
            Some(port) => write!(f, "ssh://{user}{}:{port}", self.host),
        }
    }
}

impl TryFrom<String> for Destination {
    type Error = BadDestination;
    fn try_from(text: String) -> Result<Self, BadDestination> {
        text.parse()
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> String {
        destination.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_understands_is_written_as_it_was_read() {
        for text in [
            "kong-1",
            "deploy@kong-1.example",
            "fd00::7",
            "fe80::1%eth0",
            "ssh://kong-1:2222",
            "ssh://deploy@[fd00::7]:22",
            "me@inner@bastion",
        ] {
            let destination: Destination = text.parse().unwrap();
            assert_eq!(destination.to_string(), text);
        }
        let plain: Destination = "ssh://kong-1".parse().unwrap();
        assert_eq!(plain.to_string(), "kong-1");
        let inner: Destination = "me@inner@bastion".parse().unwrap();
        assert_eq!((inner.user(), inner.host()), (Some("me@inner"), "bastion"));
    }

    #[test]
    fn an_option_or_a_shell_s_character_is_no_destination() {
        for bad in [
            "",
            "-oProxyCommand=reboot",
            "-l@host",
            "a b",
            "a;reboot",
            "$(reboot)",
            "`reboot`",
            "a'b",
            "user name@host",
            "@host",
            "host\n",
            "ssh://host:99999",
            "ssh://host:x",
            "ssh://host:0",
            "ssh://fd00::7:22",
            "ssh://",
            "a/b",
            "ü",
        ] {
            assert!(bad.parse::<Destination>().is_err(), "{bad:?} was let in");
        }
    }

    #[test]
    fn its_name_can_be_a_file_s() {
        for (text, name) in [
            ("deploy@kong-1", "kong-1"),
            ("fd00::7", "fd00--7"),
            ("::1", "h--1"),
            ("ssh://kong-1:2222", "kong-1-2222"),
        ] {
            assert_eq!(text.parse::<Destination>().unwrap().name().as_str(), name);
        }
    }
}
