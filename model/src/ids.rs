//! Names of hosts and runs. In: text from people and the wire. Out: names that are safe to use
//! as file names. Never: a name that could leave a run directory.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A host's id within a run: 1–128 of `A-Z a-z 0-9 . _ -`, not beginning with a dot or a dash.
///
/// The name becomes a file name (`hosts/HOST.svg`), so nothing else is let in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

/// Why a text is not a host name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is not a host name: use 1 to 128 letters, digits, dots, dashes or underscores, beginning with a letter or digit"
)]
pub struct BadHostName(String);

impl HostName {
    /// Checks `text` and takes it as a host name.
    ///
    /// # Errors
    /// [`BadHostName`] when a character could not stand in a file name.
    pub fn new(text: impl Into<String>) -> Result<Self, BadHostName> {
        let text = text.into();
        let good = !text.is_empty()
            && text.len() <= 128
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
            && text.as_bytes()[0].is_ascii_alphanumeric();
        if good {
            Ok(Self(text))
        } else {
            let short: String = text.chars().take(80).collect();
            Err(BadHostName(short))
        }
    }

    /// For a host that has no name which could stand in a file name.
    #[must_use]
    pub(crate) fn fallback() -> Self {
        Self("host".to_owned())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HostName {
    type Error = BadHostName;
    fn try_from(text: String) -> Result<Self, BadHostName> {
        Self::new(text)
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> String {
        name.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A run's id: a ULID (<https://github.com/ulid/spec>), so that ids sort by the time they began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(ulid::Ulid);

/// The text is not a run id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a run id (26 letters and digits, such as 01JD3K9ZT0V4Q2N8XW6B5RYHAC)")]
pub struct BadRunId(String);

impl RunId {
    /// A new id from the wall clock (milliseconds since 1970) and 80 random bits.
    #[must_use]
    pub fn from_parts(unix_ms: u64, random: u128) -> Self {
        Self(ulid::Ulid::from_parts(unix_ms, random))
    }

    /// Parses the 26-character form.
    ///
    /// # Errors
    /// [`BadRunId`] when it is none.
    pub fn parse(text: &str) -> Result<Self, BadRunId> {
        ulid::Ulid::from_string(text)
            .map(Self)
            .map_err(|_| BadRunId(text.chars().take(40).collect()))
    }

    /// Milliseconds since 1970 at which the run was made.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        self.0.timestamp_ms()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Serialize for RunId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_cannot_leave_the_run_directory() {
        for bad in ["", "../x", "a/b", ".hidden", "-rf", "a b", "a\nb", "ü"] {
            assert!(HostName::new(bad).is_err(), "{bad:?} was let in");
        }
        assert_eq!(
            HostName::new("kong-07.sh_1").unwrap().as_str(),
            "kong-07.sh_1"
        );
    }

    #[test]
    fn run_ids_sort_by_time_and_survive_text() {
        let early = RunId::from_parts(1_000, 7);
        let late = RunId::from_parts(2_000, 3);
        assert!(early < late);
        assert_eq!(RunId::parse(&early.to_string()).unwrap(), early);
        assert!(RunId::parse("nonsense").is_err());
    }
}
