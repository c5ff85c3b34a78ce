//! What values are divided by. In: a word. Out: one of three denominators. Never: a denominator that
//! is guessed because the right one is missing.

use model::profile::{Measure, Profile};
use serde::{Deserialize, Serialize};
use statistics::Scale;

/// What values are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// Parts of all samples of the same side.
    #[default]
    Share,
    /// CPU time for each second of the capture.
    Cpu,
    /// CPU time for each 1,000 requests that the same host completed in the same seconds.
    #[serde(rename = "per-1k")]
    Requests,
}

impl Per {
    /// Reads a word of the command line.
    ///
    /// # Errors
    /// The words that are known.
    pub fn parse(word: &str) -> Result<Self, String> {
        match word {
            "share" => Ok(Self::Share),
            "cpu" => Ok(Self::Cpu),
            "per-1k" | "per-1k-requests" => Ok(Self::Requests),
            _ => Err("use share, cpu or per-1k".to_owned()),
        }
    }

    /// What statistics have to know of it.
    #[must_use]
    pub fn scale(self) -> Scale {
        match self {
            Self::Share => Scale::Share,
            Self::Cpu | Self::Requests => Scale::Rate,
        }
    }

    /// The unit that ratios are shown in, after [`Per::shown`].
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Share => "%",
            Self::Cpu => "CPU-ms/s",
            Self::Requests => "CPU-ms/1k requests",
        }
    }

    /// The unit that differences are shown in.
    #[must_use]
    pub fn unit_of_difference(self) -> &'static str {
        match self {
            Self::Share => "points",
            Self::Cpu => "CPU-ms per second",
            Self::Requests => "CPU-ms per 1,000 requests",
        }
    }

    /// A ratio as people read it: shares in percent, CPU time in milliseconds.
    #[must_use]
    pub fn shown(self, ratio: f64) -> f64 {
        match self {
            Self::Share => ratio * 100.0,
            Self::Cpu | Self::Requests => ratio,
        }
    }

    /// The index of the measure that is divided, and what one of it is worth in the unit of ratios.
    /// None when the profile does not carry it.
    #[must_use]
    pub fn measure(self, profile: &Profile) -> Option<(usize, f64)> {
        if self == Self::Share {
            return Some((Measure::shown(&profile.measures).0, 1.0));
        }
        let cpu = |m: &Measure| m.name == "cpu" && m.unit == "ns";
        let at = profile.measures.iter().position(cpu)?;
        Some((at, 1e-6))
    }
}
