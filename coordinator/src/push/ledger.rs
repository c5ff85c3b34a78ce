//! What was accepted where. In: a file of the run directory, and acceptances. Out: whether something is still to be sent.
//! Never: an acceptance that is noted before the store has given it.

use super::Parcel;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The file in the run directory.
pub const LEDGER_FILE: &str = "pushed.json";
/// The schema that is written and read.
const SCHEMA: u32 = 1;

/// One acceptance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// [`Parcel::digest`] of what was accepted: labels, time and payload.
    pub digest: String,
    /// When, RFC 3339 in UTC.
    pub at: String,
}

/// All acceptances of a run, by target and host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    schema: u32,
    accepted: BTreeMap<String, BTreeMap<String, Accepted>>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            accepted: BTreeMap::new(),
        }
    }
}

impl Ledger {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let ledger: Self = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if ledger.schema != SCHEMA {
            let schema = ledger.schema;
            return Err(format!(
                "it has schema {schema}, and this fleetflame reads schema {SCHEMA}"
            ));
        }
        Ok(ledger)
    }

    /// Whether `target` has accepted just this.
    #[must_use]
    pub fn has(&self, target: &str, parcel: &Parcel) -> bool {
        let accepted = self.accepted.get(target).and_then(|t| t.get(&parcel.host));
        accepted.is_some_and(|a| a.digest == parcel.digest())
    }

    /// Notes that `target` has accepted it.
    pub fn note(&mut self, target: &str, parcel: &Parcel, at: String) {
        let digest = parcel.digest();
        let hosts = self.accepted.entry(target.to_owned()).or_default();
        hosts.insert(parcel.host.clone(), Accepted { digest, at });
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}
