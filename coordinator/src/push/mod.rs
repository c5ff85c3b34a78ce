//! Runs handed to stores that keep profiles by time: Pyroscope, Parca.
//!
//! In: a run's parcels, targets. Out: what each target accepted, and what was not and why. Never: a parcel that differs
//! from the one sent before, an acceptance that is noted before it was given, or an attempt more than the [`Policy`] allows.
//!
//! A store that accepted a parcel and broke the connection before it said so gets the same labels, time and bytes again;
//! both stores key profiles by these.

mod ledger;
pub mod link;
mod parcel;
mod send;
mod target;
pub mod wire;

pub use ledger::{Accepted, LEDGER_FILE, Ledger};
pub use parcel::{Parcel, ParcelError, Parcels, parse_label};
pub use send::{Headers, Refusal, Sender, Way};
pub use target::{Store, Target};

use std::time::Duration;

/// How often and how long a parcel is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Longest time of one attempt.
    pub attempt: Duration,
    /// Most attempts.
    pub attempts: u32,
    /// Pause after the first; each one after that is twice as long.
    pub first_pause: Duration,
    /// Longest pause.
    pub most_pause: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            attempt: Duration::from_secs(30),
            attempts: 6,
            first_pause: Duration::from_millis(500),
            most_pause: Duration::from_secs(10),
        }
    }
}

impl Policy {
    /// The pause after an attempt, counted from 1; none after the last.
    #[must_use]
    pub fn pause_after(&self, attempt: u32) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let factor = 1_u32
            .checked_shl(attempt.saturating_sub(1))
            .unwrap_or(u32::MAX);
        Some(self.first_pause.saturating_mul(factor).min(self.most_pause))
    }
}

/// Why a host's profile did not get to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The host.
    pub host: String,
    /// What was said last, and how often it was tried.
    pub said: String,
    /// What to do.
    pub remedy: &'static str,
}

/// What came of one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Hosts that it accepted now.
    pub sent: Vec<String>,
    /// Hosts that it had accepted before.
    pub already: Vec<String>,
    /// The rest.
    pub failed: Vec<Failure>,
}

/// Hands a parcel over, with retries.
///
/// # Errors
/// The failure, and whether all other parcels would fail as well.
pub async fn deliver(
    sender: &mut Sender,
    parcel: &Parcel,
    policy: &Policy,
) -> Result<(), (Failure, bool)> {
    let failure = |said: String, remedy| Failure {
        host: parcel.host.clone(),
        said,
        remedy,
    };
    let mut attempt = 1;
    loop {
        let tried = tokio::time::timeout(policy.attempt, sender.attempt(parcel)).await;
        let said = match tried {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(Refusal::Never { said, remedy, all })) => {
                return Err((failure(said, remedy), all));
            }
            Ok(Err(Refusal::Again(said))) => said,
            Err(_) => {
                sender.hang_up();
                format!("no answer in {} ms", policy.attempt.as_millis())
            }
        };
        let Some(pause) = policy.pause_after(attempt) else {
            let said = format!("{said} (tried {attempt} times)");
            let remedy =
                "push again when the store answers: what it has accepted is not sent again";
            return Err((failure(said, remedy), true));
        };
        tokio::time::sleep(pause).await;
        attempt += 1;
    }
}

/// Hands a run's parcels to one target, those that it has not accepted yet unless `again`. `keep` is called with the
/// ledger after each acceptance.
///
/// # Errors
/// Those of `keep`.
pub async fn push<E>(
    parcels: &Parcels<'_>,
    hosts: &[String],
    sender: &mut Sender,
    ledger: &mut Ledger,
    (policy, again): (&Policy, bool),
    mut keep: impl FnMut(&mut Ledger, &Parcel, &str) -> Result<(), E>,
) -> Result<Outcome, E> {
    let target = sender.target.to_string();
    let mut outcome = Outcome::default();
    let mut given_up: Option<Failure> = None;
    for host in hosts {
        let parcel = parcels.parcel(host);
        if !again && ledger.has(&target, &parcel) {
            outcome.already.push(host.clone());
            continue;
        }
        if let Some(first) = &given_up {
            outcome.failed.push(Failure {
                host: host.clone(),
                said: format!("not tried, since {} failed", first.host),
                remedy: first.remedy,
            });
            continue;
        }
        match deliver(sender, &parcel, policy).await {
            Ok(()) => {
                keep(ledger, &parcel, &target)?;
                outcome.sent.push(host.clone());
            }
            Err((failure, all)) => {
                if all {
                    given_up = Some(failure.clone());
                }
                outcome.failed.push(failure);
            }
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_then_end() {
        let policy = Policy::default();
        let pauses: Vec<_> = (1..=policy.attempts)
            .map(|n| policy.pause_after(n))
            .collect();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(
            pauses,
            [ms(500), ms(1_000), ms(2_000), ms(4_000), ms(8_000), None]
        );
        let long = Policy {
            attempts: 40,
            ..policy
        };
        assert_eq!(long.pause_after(39), ms(10_000));
    }
}
